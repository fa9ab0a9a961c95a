"""What every place promises: one set of tests on a folder, in memory and on a real S3-speaking server."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ibstore.store.places import RECORD, Storage, open_storage

ABSENT = (FileNotFoundError, NotADirectoryError)
THREADS = 8


@pytest.fixture
def storage(location) -> Storage:
    """An empty place."""
    return open_storage(location)


def winners(attempt):
    """Those of many threads, started at once, whose attempt did not come too late."""
    start = Barrier(THREADS)

    def work(number):
        start.wait(60)
        try:
            attempt(number)
        except FileExistsError:
            return []
        return [number]

    with ThreadPoolExecutor(THREADS) as pool:
        return list(itertools.chain(*pool.map(work, range(THREADS))))


def content_of(number):
    return str(number).encode() * 1000


# ---- reading and writing


def test_nothing_is_there_at_first(storage):
    assert not storage.exists()
    assert storage.files("") == storage.files("a") == {}
    assert storage.folders("") == storage.folders("a") == []
    assert not storage.has(RECORD)
    assert storage.read_all([RECORD, "a/b"]) == [None, None]
    for ask in (storage.read, storage.size):
        with pytest.raises(FileNotFoundError):
            ask("a/b")


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 300])
def test_what_is_put_is_read(storage, content):
    storage.put("a/b/c", content)
    assert storage.exists()
    assert storage.read("a/b/c") == content
    assert storage.size("a/b/c") == len(content)
    assert storage.has("a/b/c")
    assert storage.files("") == {"a/b/c": len(content)}
    storage.put("a/b/c", b"other")
    assert storage.read("a/b/c") == b"other"


def test_some_bytes_are_read(storage):
    storage.put("a/b", bytes(range(100)))
    assert storage.read_range("a/b", 0, 1) == b"\0"
    assert storage.read_range("a/b", 90, 100) == bytes(range(90, 100))
    assert storage.read_range("a/b", 95, 105) == bytes(range(95, 100))
    with pytest.raises(FileNotFoundError):
        storage.read_range("a/c", 0, 1)


def test_many_are_read_at_once_in_the_order_asked_for(storage):
    keys = [f"a/{number}" for number in range(20)]
    for key in keys[::2]:
        storage.put(key, key.encode())
    assert storage.read_all(reversed(keys)) == [key.encode() if key in keys[::2] else None for key in reversed(keys)]


@pytest.mark.parametrize("key", ["=2E=2E/=20.x", "c.0.0.0", "a-b_c/zarr.json", "A/a", ".hidden"])
def test_every_name_that_a_store_has_may_be_a_key(storage, key):
    storage.put(key, b"1")
    assert storage.files("") == {key: 1}
    assert storage.read(key) == b"1"


def test_folders_and_files_are_told_from_those_whose_names_begin_alike(storage):
    for key in ("runs/a/x", "runs/a/s/y", "runs/ab/x", "runs/zarr.json", "runsx/z"):
        storage.put(key, b"12")
    assert storage.folders("") == ["runs", "runsx"]
    assert storage.folders("runs") == ["a", "ab"]
    assert storage.folders("runs/a") == ["s"]
    assert storage.folders("run") == storage.folders("runs/a/x") == []
    assert list(storage.files("runs/a")) == ["s/y", "x"]  # in order, relative
    assert storage.files("run") == {}
    assert len(storage.files("")) == 5


# ---- only if absent, and compare and swap


@pytest.mark.parametrize("durable", [False, True])
def test_new_is_put_once(storage, durable):
    storage.put_new("a/b", b"winner", durable=durable)
    with pytest.raises(FileExistsError):
        storage.put_new("a/b", b"loser", durable=durable)
    assert storage.read("a/b") == b"winner"
    assert storage.files("") == {"a/b": 6}
    storage.remove("a/b")
    storage.put_new("a/b", b"next", durable=durable)


def test_of_many_who_put_at_once_one_wins(storage):
    (winner,) = winners(lambda number: storage.put_new("a/b", content_of(number)))
    assert storage.read("a/b") == content_of(winner)
    assert list(storage.files("")) == ["a/b"]


def test_a_file_is_swapped_while_it_is_what_it_was(storage):
    storage.put("a/b", b"old")
    storage.swap("a/b", b"old", b"new")
    assert storage.read("a/b") == b"new"
    with pytest.raises(FileExistsError):
        storage.swap("a/b", b"old", b"newer")
    assert storage.read("a/b") == b"new"
    assert list(storage.files("")) == ["a/b"]


@pytest.mark.parametrize("key", ["a/b", "a/c", "d/e"])
def test_what_is_gone_is_not_swapped(storage, key):
    storage.put("a/b", b"old")
    storage.remove("a/b")
    with pytest.raises(FileExistsError):
        storage.swap(key, b"old", b"new")
    assert storage.files("") == {}


def test_of_many_who_swap_at_once_one_wins(storage):
    storage.put("a/b", b"old")
    (winner,) = winners(lambda number: storage.swap("a/b", b"old", content_of(number)))
    assert storage.read("a/b") == content_of(winner)


# ---- removing


def test_removing_takes_one_and_what_is_not_there_is_removed_already(storage):
    storage.put("a/b", b"1")
    storage.put("a/c", b"1")
    for _ in range(2):
        storage.remove("a/b")
        storage.remove("d/e")
        assert list(storage.files("")) == ["a/c"]


def test_removing_below_takes_all_and_no_neighbour(storage):
    for key in ("a/b", "a/c/d", "ab/c", "z"):
        storage.put(key, b"1")
    for _ in range(2):
        storage.remove_below("a")
        assert list(storage.files("")) == ["ab/c", "z"]
    assert storage.folders("") == ["ab"]


def test_a_group_loses_its_record_first(storage, monkeypatch):
    for key in (f"a/{RECORD}", f"a/b/{RECORD}", "a/b/c.0"):
        storage.put(key, b"1")

    def killed(self, key):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(storage), "remove_below", killed)
        with pytest.raises(KeyboardInterrupt):
            storage.remove_group("a")
    assert list(storage.files("a")) == ["b/c.0", f"b/{RECORD}"]
    storage.remove_group("a")
    assert storage.files("") == {}
    storage.remove_group("a")


def test_an_empty_place_is_removed_and_no_other(storage):
    storage.make()
    storage.make()
    storage.put("a", b"1")
    storage.remove_empty()
    assert storage.files("") == {"a": 1}
    storage.remove("a")
    storage.remove_empty()
    assert not storage.exists()
    storage.remove_empty()


# ---- the rest


def test_a_place_beside_it_is_another(storage, location):
    beside = storage.beside(".analysis")
    assert beside.location.endswith("lab.zarr.analysis")
    beside.put("a", b"beside")
    assert storage.files("") == {}
    storage.put("a", b"here")
    assert open_storage(f"{location}.analysis").read("a") == b"beside"
    assert storage.folders("") == []


def test_a_place_is_the_same_whoever_opens_it(storage, location):
    storage.put("a", b"1")
    assert open_storage(location).read("a") == open_storage(f"{location}/").read("a") == b"1"


def test_files_are_to_be_had_as_local_ones(storage, tmp_path):
    keys = ["a/x", "b/x", "c"]
    for key in keys:
        storage.put(key, key.encode())
    paths = storage.local(keys, tmp_path / "scratch")
    assert [path.read_bytes().decode() for path in paths] == keys
    assert all(path.is_absolute() for path in paths)
    assert storage.local([], tmp_path / "scratch") == []


def test_where_names_the_whole_key(storage, location):
    assert storage.where() == location
    assert storage.where("runs/a") == f"{location}/runs/a"


def test_what_is_put_can_be_made_durable_and_has_no_strays(storage):
    storage.put("a/b", b"1")
    storage.put_new("a/c", b"1")
    storage.sync("a")
    assert storage.strays("a") == storage.strays("none") == []
    with storage.locked("") as alone:
        assert isinstance(alone, bool)
        assert storage.read("a/b") == b"1"
    free = storage.free_bytes()
    assert free is None or free > 0


KEYS = st.sampled_from(["a", "b/c", "b/d", "b/e/f", "bb/c"])
CONTENTS = st.binary(max_size=3)
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, CONTENTS),
    st.tuples(st.just("put_new"), KEYS, CONTENTS),
    st.tuples(st.just("swap"), KEYS, CONTENTS, CONTENTS),
    st.tuples(st.just("remove"), KEYS),
    st.tuples(st.just("remove_below"), st.sampled_from(["b", "b/e", "bb"])),
)


def expected(model, name, key, *contents):
    """Do a step in a dict; true when it comes too late."""
    late = {"put_new": key in model, "swap": name == "swap" and model.get(key) != contents[0]}.get(name, False)
    if name.startswith("remove"):
        for gone in [each for each in model if each == key or each.startswith(f"{key}/")]:
            del model[gone]
    elif not late:
        model[key] = contents[-1]
    return late


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=12))
def test_a_place_is_a_dict(storage, steps):
    storage.remove_below("b")
    for key in storage.files(""):
        storage.remove(key)
    model = {}
    for name, *arguments in steps:
        if expected(model, name, *arguments):
            with pytest.raises(FileExistsError):
                getattr(storage, name)(*arguments)
        else:
            getattr(storage, name)(*arguments)
    found = storage.files("")
    assert found == {key: len(content) for key, content in sorted(model.items())}
    assert storage.read_all(found) == [model[key] for key in found]
