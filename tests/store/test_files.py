import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ibstore.errors import StoreError, WriteError
from ibstore.store import files

HOLDER = """
import sys
from pathlib import Path
from ibstore.store import files
lock = files.claim(Path(sys.argv[1]))
print("refused" if lock is None else "held", flush=True)
if sys.stdin.readline() == "release\\n":
    files.release(lock)
    print("released", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that claims ``tmp_path`` and does as it is told."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process
        process.kill()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_put_lies_there_alone(tmp_path):
    files.put_new(tmp_path / "zarr.json", {"a": [1, "é"]})
    assert names(tmp_path) == ["zarr.json"]
    assert files.read_json(tmp_path / "zarr.json") == {"a": [1, "é"]}


def test_who_comes_second_is_told_and_changes_nothing(tmp_path):
    files.put_new(tmp_path / "zarr.json", {"winner": 1})
    with pytest.raises(FileExistsError):
        files.put_new(tmp_path / "zarr.json", {"winner": 2})
    assert files.read_json(tmp_path / "zarr.json") == {"winner": 1}
    assert names(tmp_path) == ["zarr.json"]


def test_a_race_lost_between_writing_and_linking_is_told(tmp_path, monkeypatch):
    real = os.link

    def overtaken(source, target):
        monkeypatch.setattr(os, "link", real)
        files.put_new(tmp_path / "zarr.json", {"winner": "the other"})
        real(source, target)

    monkeypatch.setattr(os, "link", overtaken)
    with pytest.raises(FileExistsError):
        files.put_new(tmp_path / "zarr.json", {"winner": "me"})
    assert files.read_json(tmp_path / "zarr.json") == {"winner": "the other"}
    assert names(tmp_path) == ["zarr.json"]


def test_what_a_killed_writer_left_is_neither_used_nor_in_the_way(tmp_path, monkeypatch):
    """Killed between link and unlink, its temporary file *is* the committed one: nobody may write into it."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda _, missing_ok=False: missing_ok)
        files.put_new(tmp_path / "zarr.json", {"committed": True})
    assert len(names(tmp_path)) == 2
    with pytest.raises(FileExistsError):
        files.put_new(tmp_path / "zarr.json", {"committed": False})
    assert files.read_json(tmp_path / "zarr.json") == {"committed": True}
    files.sweep_partial(tmp_path)
    assert names(tmp_path) == ["zarr.json"]


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_failing_put_leaves_nothing(tmp_path, monkeypatch, call):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        files.put_new(tmp_path / "zarr.json", {})
    assert names(tmp_path) == []


def test_no_bare_nan_is_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.put_new(tmp_path / "zarr.json", {"loss": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_bytes_are_durable_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    done = []
    for call in ("fsync", "link"):
        real = getattr(os, call)

        def noted(*arguments, call=call, real=real):
            place = Path(f"/proc/self/fd/{arguments[0]}").readlink() if call == "fsync" else arguments[1]
            done.append((call, place.name))
            return real(*arguments)

        monkeypatch.setattr(os, call, noted)
    files.put_new(tmp_path / "zarr.json", {})
    (content, temporary), *rest = done
    assert content == "fsync"
    assert temporary.endswith(files.PARTIAL)
    assert rest == [("link", "zarr.json"), ("fsync", tmp_path.name)]


def test_json_is_an_object_or_absent(tmp_path):
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "torn.json").write_text('{"a": ')
    assert files.read_json(tmp_path / "no.json") is None
    assert files.read_json(tmp_path / "list.json" / "below.json") is None
    with pytest.raises(ValueError, match="holds no JSON object"):
        files.read_json(tmp_path / "list.json")
    with pytest.raises(json.JSONDecodeError):
        files.read_json(tmp_path / "torn.json")


def test_a_tree_is_synced_whole_and_its_name_too(tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    for file in ("one", "a/two", "a/b/three"):
        (root / file).write_text("x")
    synced = []
    monkeypatch.setattr(files, "sync", synced.append)
    files.sync_tree(root)
    assert sorted(synced) == sorted([tmp_path, root, *root.rglob("*")])
    assert synced.index(root / "a" / "b" / "three") < synced.index(root / "a" / "b") < synced.index(root)
    assert synced[-1] == tmp_path


def test_the_names_of_new_folders_are_durable(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(files, "sync", synced.append)
    files.make_folders(tmp_path / "a" / "b")
    assert sorted(synced) == [tmp_path, tmp_path / "a"]
    files.make_folders(tmp_path / "a" / "b")
    assert len(synced) == 2


def test_removing_takes_the_record_first_and_durably(tmp_path, monkeypatch):
    root = tmp_path / "root"
    (root / "below").mkdir(parents=True)
    (root / "zarr.json").write_text("{}")
    seen = []
    monkeypatch.setattr(files, "sync", lambda path: seen.append((path, names(path))))
    files.remove_tree(root)
    assert seen == [(root, ["below"])]
    assert not root.exists()
    files.remove_tree(root)


def test_folders_come_by_name_without_files(tmp_path):
    for folder in ("b", "a", "c"):
        (tmp_path / folder).mkdir()
    (tmp_path / "file").touch()
    assert [path.name for path in files.folders(tmp_path)] == ["a", "b", "c"]
    assert files.folders(tmp_path / "none") == files.folders(tmp_path / "file") == []


def test_a_claim_keeps_another_process_out_until_it_is_given_back(tmp_path, holder):
    assert holder.stdout.readline() == "held\n"
    assert files.claim(tmp_path) is None
    print("release", file=holder.stdin, flush=True)
    assert holder.stdout.readline() == "released\n"
    lock = files.claim(tmp_path)
    assert lock is not None
    assert files.claim(tmp_path) is None  # a second recorder of this process is kept out too
    files.release(lock)


def test_a_killed_process_claims_nothing(tmp_path, holder):
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    assert holder.wait() == -signal.SIGKILL
    lock = files.claim(tmp_path)
    assert lock is not None
    files.release(lock)


def test_a_claim_is_given_back_though_a_forked_worker_still_holds_its_copy(tmp_path):
    lock = files.claim(tmp_path)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock]) as worker:
        files.release(lock)
        again = files.claim(tmp_path)
        assert again is not None
        files.release(again)
        worker.stdin.close()


def test_a_claim_leaves_nothing_in_the_folder(tmp_path):
    lock = files.claim(tmp_path)
    assert names(tmp_path) == []
    files.release(lock)


def test_locked_waits_for_nobody_once_it_is_left(tmp_path):
    with files.locked(tmp_path):
        assert files.claim(tmp_path) is None
    lock = files.claim(tmp_path)
    assert lock is not None
    files.release(lock)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (OSError("the disk is on fire"), "the disk is on fire"),
    ],
)
def test_a_refusal_to_write_names_the_place_the_fact_and_the_next_action(tmp_path, error, reason):
    with pytest.raises(WriteError) as caught, files.write_errors(tmp_path):
        raise error
    assert str(caught.value) == (
        f"cannot write to {tmp_path}: {reason}; whatever was committed before is whole: free space or mend the "
        "permissions, then capture again"
    )
    assert caught.value.__cause__ is error


def test_a_lost_race_and_other_errors_pass(tmp_path):
    for error in (FileExistsError(), KeyError("a"), StoreError("b")):
        with pytest.raises(type(error)) as caught, files.write_errors(tmp_path):
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
    with pytest.raises(StoreError) as caught, files.read_errors(tmp_path):
        raise error
    assert str(caught.value) == message.replace("PLACE", str(tmp_path))


def test_what_is_absent_is_no_refusal(tmp_path):
    with pytest.raises(FileNotFoundError), files.read_errors(tmp_path):
        raise FileNotFoundError
