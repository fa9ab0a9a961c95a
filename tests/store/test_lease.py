"""A writer's lease: who is alive keeps others out, who is dead nobody, and a stolen one is noticed."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from threading import Barrier

import pytest

from ibstore.errors import RunBusyError, WriteError
from ibstore.store.places import lease, open_storage
from ibstore.store.places.lease import RENEWALS, SECONDS, Holder, Lease, holder_of

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
KEY = "runs/run0/lease.json"
ELSEWHERE = "another machine's boot"


@pytest.fixture
def storage(location):
    return open_storage(location)


def take(storage):
    return Lease(storage, KEY, "run 'run0'")


def put_holder(storage, holder):
    """Leave a lease there as ``holder`` would have."""
    storage.put(KEY, holder.dump())
    return holder


def dead():
    """A holder whose process number is another process now: this one."""
    here = Holder.here()
    return replace(here, started=here.started - 1)


def far(seconds_ago):
    """A holder on another machine, which renewed so many seconds ago."""
    return replace(Holder.here(), host="elsewhere", space=ELSEWHERE, renewed=time.time() - seconds_ago)


# ---- who is alive


def test_this_process_is_alive_however_long_it_slept():
    assert Holder.here().alive()
    assert replace(Holder.here(), renewed=0.0).alive()


def test_every_lease_is_another():
    assert Holder.here().token != Holder.here().token


@LINUX
def test_a_process_is_alive_until_it_ends_though_nobody_has_waited_for_it():
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        holder = replace(Holder.here(), pid=process.pid, started=lease._started(process.pid))
        assert holder.alive()
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and its number is still taken
        assert not holder.alive()
    assert not holder.alive()


@LINUX
def test_a_number_that_came_again_is_another_process():
    assert not dead().alive()


@LINUX
def test_a_command_with_a_blank_or_a_bracket_in_its_name_has_a_start(tmp_path):
    command = tmp_path / "a ) b"
    command.symlink_to("/bin/cat")
    with subprocess.Popen([command], stdin=subprocess.PIPE) as process:
        assert lease._started(process.pid) >= lease._started(os.getpid())
        process.stdin.close()


@pytest.mark.parametrize("space", [ELSEWHERE, ""])
def test_who_is_elsewhere_is_alive_while_it_renews(space):
    assert replace(far(SECONDS - 5), space=space).alive()
    assert not replace(far(SECONDS + 1), space=space).alive()
    assert replace(far(-5), space=space).alive()  # its clock is ahead
    assert not replace(far(-86_400), space=space).alive()  # so far that nobody could wait for it


def test_where_processes_have_no_place_the_clock_decides(monkeypatch):
    monkeypatch.setattr(lease, "_space", lambda: "")
    here = Holder.here()
    assert here.alive()
    assert not replace(here, renewed=time.time() - SECONDS - 1).alive()


def test_a_holder_comes_back_and_fields_of_a_later_ibstore_are_passed_over():
    here = Holder.here()
    assert Holder.load(here.dump()) == here
    assert Holder.load(here.dump().replace(b"{", b'{"later": [1],', 1)) == here


UNREADABLE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff",
    b'{"token": "a"}',
    b'{"token": "a", "host": "b", "pid": 1, "started": 1, "space": "", "renewed": "soon"}',
    b'{"token": "a", "host": "b", "pid": "x", "started": 1, "space": "", "renewed": 0}',
    b'{"token": "a", "host": "b", "pid": 1, "started": null, "space": "", "renewed": 0}',
]


@pytest.mark.parametrize("content", UNREADABLE)
def test_a_lease_that_cannot_be_read_has_no_holder(content):
    assert Holder.load(content) is None


# ---- taking


def test_a_lease_is_there_while_it_is_held_and_nothing_is_left_of_it(storage):
    assert holder_of(storage, KEY) is None
    held = take(storage)
    assert list(storage.files("")) == [KEY]
    holder = holder_of(storage, KEY)
    assert (holder.pid, holder.host) == (os.getpid(), socket.gethostname())
    held.check()
    held.release()
    held.release()
    assert storage.files("") == {}
    assert holder_of(storage, KEY) is None


def test_who_is_alive_keeps_others_out(storage):
    held = take(storage)
    before = storage.read(KEY)
    with pytest.raises(RunBusyError) as caught:
        take(storage)
    assert str(caught.value) == (
        f"run 'run0' is being written by process {os.getpid()} on {socket.gethostname()} (another process, or a "
        "recorder that is not closed); choose another run name, or wait until it ends"
    )
    assert storage.read(KEY) == before
    held.release()
    take(storage).release()


def test_who_is_alive_elsewhere_keeps_others_out_until_it_stops_renewing(storage):
    holder = put_holder(storage, far(SECONDS / 2))
    assert holder_of(storage, KEY) == holder
    with pytest.raises(RunBusyError, match=rf"run 'run0' is being written by process {holder.pid} on elsewhere \("):
        take(storage)
    put_holder(storage, far(SECONDS + 1))
    assert holder_of(storage, KEY) is None
    take(storage).release()


@LINUX
def test_who_is_dead_keeps_nobody_out(storage):
    put_holder(storage, dead())
    held = take(storage)
    held.check()
    held.release()


@pytest.mark.parametrize("content", UNREADABLE)
def test_a_lease_that_cannot_be_read_keeps_nobody_out(in_memory, content):
    storage = open_storage(in_memory)
    storage.put(KEY, content)
    held = take(storage)
    held.check()
    held.release()
    assert storage.files("") == {}


@pytest.mark.parametrize("left", [None, far(SECONDS + 1)])
def test_of_many_who_take_it_at_once_one_succeeds(storage, left):
    if left is not None:
        put_holder(storage, left)
    start = Barrier(8)

    def attempt(number):
        start.wait(60)
        with suppress(RunBusyError):
            return take(storage)
        return None

    with ThreadPoolExecutor(8) as pool:
        held = [each for each in pool.map(attempt, range(8)) if each is not None]
    assert len(held) == 1
    held[0].check()
    held[0].release()
    assert storage.files("") == {}


def test_a_lease_that_is_released_while_it_is_looked_at_is_being_taken_over(storage, monkeypatch):
    put_holder(storage, far(SECONDS + 1))
    real = type(storage).read

    def released(self, key):
        self.remove(key)
        return real(self, key)

    monkeypatch.setattr(type(storage), "read", released)
    with pytest.raises(RunBusyError, match="run 'run0' is being taken over by another process; wait until it ends"):
        take(storage)


# ---- holding


def assert_lost(held, storage):
    with pytest.raises(WriteError) as caught:
        held.check()
    assert str(caught.value) == (
        f"run 'run0' was taken over by another writer, or its lease {storage.where(KEY)} was removed; whatever was "
        "committed is whole: see that one process writes it, then resume"
    )


def test_a_lease_that_was_taken_over_is_noticed_and_left_alone(storage):
    held = take(storage)
    thief = put_holder(storage, far(0))
    assert_lost(held, storage)
    with pytest.raises(FileExistsError):
        held._renew()
    held.release()
    assert holder_of(storage, KEY) == thief
    assert storage.read(KEY) == thief.dump()


def test_a_lease_that_was_removed_is_noticed(storage):
    held = take(storage)
    storage.remove(KEY)
    assert_lost(held, storage)
    with pytest.raises(FileExistsError):
        held._renew()
    held.release()
    assert storage.files("") == {}


@pytest.mark.parametrize("content", UNREADABLE[:3])
def test_a_lease_that_was_overwritten_is_noticed(in_memory, content):
    storage = open_storage(in_memory)
    held = take(storage)
    storage.put(KEY, content)
    assert_lost(held, storage)
    held.release()
    assert storage.read(KEY) == content


def test_renewing_changes_the_time_alone(storage, monkeypatch):
    held = take(storage)
    before = Holder.load(storage.read(KEY))
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: before.renewed + 1000)
        held._renew()
        held._renew()
    assert Holder.load(storage.read(KEY)) == replace(before, renewed=before.renewed + 1000)
    held.check()
    held.release()
    held._renew()  # the thread may come once more
    assert storage.files("") == {}


def test_it_is_renewed_again_and_again_until_it_is_lost(in_memory, monkeypatch):
    """The thread's own work, done here: what fails for a while is tried again, what is lost is let be."""
    storage = open_storage(in_memory)
    held = take(storage)
    outcomes = iter([None, WriteError("the network is down"), None, FileExistsError(KEY)])
    waited = []

    def swap(key, old, new):
        outcome = next(outcomes)
        if outcome is not None:
            raise outcome

    monkeypatch.setattr(storage, "swap", swap)
    monkeypatch.setattr(held._released, "wait", waited.append)
    held._keep()
    assert list(outcomes) == []
    assert waited == [SECONDS / RENEWALS] * 4


def test_a_refusal_to_remove_it_is_told(storage, monkeypatch):
    held = take(storage)

    def refuse(key):
        raise WriteError("cannot write to it")

    monkeypatch.setattr(storage, "remove", refuse)
    with pytest.raises(WriteError, match="cannot write to it"):
        held.release()
