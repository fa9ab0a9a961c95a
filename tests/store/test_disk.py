"""What a folder promises beyond the contract of every place: durability, locks, what killed writers leave."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ibstore.errors import StoreError, WriteError
from ibstore.store.places import RECORD, disk, open_storage
from ibstore.store.places.disk import PARTIAL, Disk, put_file, read_errors, write_errors

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


@pytest.fixture
def place(tmp_path):
    return Disk(tmp_path)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def has_lock(folder):
    """Whether somebody holds the kernel's lock on a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


# ---- putting


def test_what_is_put_lies_there_alone(place, tmp_path):
    place.put("zarr.json", b"put")
    place.put_new("new.json", b"new")
    place.swap("new.json", b"new", b"swapped")
    assert names(tmp_path) == ["new.json", "zarr.json"]


def test_a_race_lost_between_writing_and_linking_is_told(place, tmp_path, monkeypatch):
    real = os.link

    def overtaken(source, target):
        monkeypatch.setattr(os, "link", real)
        place.put_new("zarr.json", b"the other")
        real(source, target)

    monkeypatch.setattr(os, "link", overtaken)
    with pytest.raises(FileExistsError):
        place.put_new("zarr.json", b"me")
    assert place.read("zarr.json") == b"the other"
    assert names(tmp_path) == ["zarr.json"]


def test_what_a_killed_writer_left_is_neither_used_nor_in_the_way(place, tmp_path, monkeypatch):
    """Killed between link and unlink, its temporary file *is* the committed one: nobody may write into it."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda _, missing_ok=False: missing_ok)
        place.put_new("a/zarr.json", b"committed")
    with pytest.raises(FileExistsError):
        place.put_new("a/zarr.json", b"other")
    assert place.read("a/zarr.json") == b"committed"
    (stray,) = place.strays("a")
    assert stray.startswith("a/.zarr.json.")
    place.remove(stray)
    assert names(tmp_path / "a") == ["zarr.json"]


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_failing_put_leaves_nothing(place, tmp_path, monkeypatch, call):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(WriteError, match=r"cannot write to .*zarr.json: No space left on device"):
        place.put_new("zarr.json", b"", durable=True)
    assert names(tmp_path) == []


def test_a_folder_that_vanishes_while_something_is_put_there_is_made_again(place, monkeypatch):
    """Writers of other runs remove what has become empty."""
    real, calls = Path.mkdir, []

    def vanishing(self, *arguments, **options):
        calls.append(self)
        if len(calls) == 1:
            raise FileNotFoundError(self)
        real(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", vanishing)
    place.put("a/b", b"1")
    assert place.read("a/b") == b"1"


def test_a_link_keeps_leading_to_the_file_that_is_put(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    put_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_pipe_is_written_as_it_is(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
        put_file(tmp_path / "pipe", b"table")
        assert reader.stdout.read() == b"table"
    assert (tmp_path / "pipe").is_fifo()


# ---- durability


@LINUX
def test_bytes_are_durable_before_the_name_and_the_name_before_the_return(place, tmp_path, monkeypatch):
    done = []
    for call in ("fsync", "link"):
        real = getattr(os, call)

        def noted(*arguments, call=call, real=real):
            path = Path(f"/proc/self/fd/{arguments[0]}").readlink() if call == "fsync" else arguments[1]
            done.append((call, path.name))
            return real(*arguments)

        monkeypatch.setattr(os, call, noted)
    place.put_new("zarr.json", b"", durable=True)
    (content, temporary), *rest = done
    assert content == "fsync"
    assert temporary.endswith(PARTIAL)
    assert rest == [("link", "zarr.json"), ("fsync", tmp_path.name)]


def test_a_tree_is_synced_whole_and_its_name_too(place, tmp_path, monkeypatch):
    root = tmp_path / "root"
    for file in ("one", "a/two", "a/b/three"):
        place.put(f"root/{file}", b"x")
    synced = []
    monkeypatch.setattr(disk, "sync", synced.append)
    place.sync("root")
    assert sorted(synced) == sorted([tmp_path, root, *root.rglob("*")])
    assert synced.index(root / "a" / "b" / "three") < synced.index(root / "a" / "b") < synced.index(root)
    assert synced[-1] == tmp_path


def test_the_names_of_new_folders_are_durable(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(disk, "sync", synced.append)
    Disk(tmp_path / "a" / "b").make()
    assert sorted(synced) == [tmp_path, tmp_path / "a"]
    Disk(tmp_path / "a" / "b").make()
    assert len(synced) == 2


def test_removing_takes_the_record_first_and_durably(place, tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "below").mkdir(parents=True)
    (root / RECORD).write_text("{}")
    seen = []
    monkeypatch.setattr(disk, "sync", lambda path: seen.append((path, names(path))))
    place.remove_group("root")
    assert seen == [(root, ["below"])]
    assert not root.exists()
    place.remove_group("root")


# ---- what lies there


def test_folders_come_by_name_without_files(place, tmp_path):
    for folder in ("b", "a", "c"):
        (tmp_path / folder).mkdir()
    (tmp_path / "file").touch()
    assert place.folders("") == ["a", "b", "c"]
    assert place.folders("none") == place.folders("file") == place.folders("file/none") == []


def test_files_that_vanish_while_they_are_listed_are_left_out(place, monkeypatch):
    for key in ("a/x", "a/y", "b/z"):
        place.put(key, b"1")
    real = Path.lstat

    def vanishing(self):
        if self.name == "x":
            raise FileNotFoundError(self)
        return real(self)

    monkeypatch.setattr(Path, "lstat", vanishing)
    assert list(place.files("")) == ["a/y", "b/z"]


def test_what_is_below_a_file_is_not_there(place):
    place.put("file", b"1")
    assert not place.has("file/below")
    assert place.read_all(["file/below"]) == [None]
    assert place.files("file/below") == {}
    place.remove("file/below")
    with pytest.raises(NotADirectoryError):
        place.read("file/below")


def test_only_temporary_files_are_strays(place, tmp_path):
    place.put("a/zarr.json", b"1")
    (tmp_path / "a" / f".zarr.json.0123{PARTIAL}").touch()
    assert place.strays("a") == [f"a/.zarr.json.0123{PARTIAL}"]
    assert place.strays("") == place.strays("a/zarr.json") == []


def test_a_file_or_a_dangling_link_is_no_place(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        assert Disk(tmp_path / name).exists()
        with pytest.raises(FileExistsError):
            Disk(tmp_path / name).make()


def test_a_place_beside_a_link_is_beside_what_it_leads_to(tmp_path):
    (tmp_path / "real").mkdir()
    Disk(tmp_path / "real" / "lab.zarr").make()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "lab.zarr")
    assert Disk(tmp_path / "link").beside(".analysis").root == tmp_path / "real" / "lab.zarr.analysis"


def test_space_is_told_where_the_folder_will_be(tmp_path):
    assert Disk(tmp_path / "not" / "yet").free_bytes() > 0


def test_a_url_of_a_file_is_a_folder(tmp_path):
    found = open_storage(f"file://{tmp_path}/lab.zarr")
    assert isinstance(found, Disk)
    assert found.root == tmp_path / "lab.zarr"


# ---- locks


def test_a_lock_is_held_until_it_is_left(place, tmp_path):
    with place.locked("") as alone:
        assert alone
        assert has_lock(tmp_path)
        assert names(tmp_path) == []  # nothing foreign
    assert not has_lock(tmp_path)


def test_a_lock_is_given_back_though_a_forked_worker_still_holds_its_copy(place, tmp_path, monkeypatch):
    opened, real = [], os.open
    monkeypatch.setattr(os, "open", lambda *arguments: opened.append(real(*arguments)) or opened[-1])
    with place.locked(""):
        monkeypatch.undo()
        worker = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=opened)
    with worker:
        assert not has_lock(tmp_path)
        worker.stdin.close()


def test_a_lock_is_given_back_after_an_error(place, tmp_path):
    with pytest.raises(KeyError), place.locked(""):
        raise KeyError
    assert not has_lock(tmp_path)


def test_a_file_system_without_locks_says_so(place, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with place.locked("") as alone:
        assert not alone
    place.put("a", b"old")
    place.swap("a", b"old", b"new")
    assert place.read("a") == b"new"


def test_whoever_stops_waiting_for_a_lock_stops(place, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(fcntl, "flock", interrupt)
    with pytest.raises(KeyboardInterrupt), place.locked(""):
        raise AssertionError


# ---- refusals


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (OSError("the disk is on fire"), "the disk is on fire"),
    ],
)
def test_a_refusal_to_write_names_the_place_the_fact_and_the_next_action(tmp_path, error, reason):
    with pytest.raises(WriteError) as caught, write_errors(tmp_path):
        raise error
    assert str(caught.value) == (
        f"cannot write to {tmp_path}: {reason}; whatever was committed before is whole: free space or mend the "
        "permissions, then do it again, a capture with --resume"
    )
    assert caught.value.__cause__ is error


def test_a_lost_race_and_other_errors_pass(tmp_path):
    for error in (FileExistsError(), KeyError("a"), StoreError("b")):
        with pytest.raises(type(error)) as caught, write_errors(tmp_path):
            raise error
        assert caught.value is error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "/lab/zarr.json"),
            "cannot read /lab/zarr.json: Permission denied; ask its owner for access",
        ),
        (OSError(errno.EIO, "Input/output error"), "cannot read PLACE: Input/output error; mend that, then ask again"),
    ],
)
def test_a_refusal_to_read_names_the_place_the_fact_and_the_next_action(tmp_path, error, message):
    with pytest.raises(StoreError) as caught, read_errors(tmp_path):
        raise error
    assert str(caught.value) == message.replace("PLACE", str(tmp_path))


def test_what_is_absent_is_no_refusal(tmp_path):
    with pytest.raises(FileNotFoundError), read_errors(tmp_path):
        raise FileNotFoundError
