import contextlib
from threading import Event, Thread

import pytest

from ibstore.capture.background import BackgroundWriter, queue_length
from ibstore.errors import WriteError

PATIENCE = 30  # seconds until a deadlock is called one; never waited for when all is well


@pytest.fixture
def gate():
    event = Event()
    yield event
    event.set()


def held(length, gate):
    """A writer whose thread waits at ``gate``, with an empty queue behind it."""
    writer, started = BackgroundWriter(length), Event()

    def wait():
        started.set()
        assert gate.wait(PATIENCE)

    writer.put(wait)
    assert started.wait(PATIENCE)
    return writer


def put_often(writer, task):
    """More tasks than the queue holds, so that the thread must have taken what was put before."""
    for _ in range(100):
        writer.put(task)


def fail():
    raise WriteError("no space left")


def test_tasks_run_in_order_and_all_of_them():
    done = []
    writer = BackgroundWriter(2)
    for number in range(100):
        writer.put(lambda number=number: done.append(number))
    writer.close()
    assert done == list(range(100))


def test_put_waits_while_the_queue_is_full(gate):
    writer = held(3, gate)
    for _ in range(3):
        writer.put(lambda: None)
    through = Event()
    blocked = Thread(target=lambda: (writer.put(lambda: None), through.set()), daemon=True)
    blocked.start()
    assert not through.wait(0.2)  # an unbounded queue would let it through at once
    gate.set()
    assert through.wait(PATIENCE)
    writer.close()


def test_an_error_comes_back_as_it_was_at_a_later_put():
    error = WriteError("no space left")

    def fail_so():
        raise error

    writer = BackgroundWriter(2)
    writer.put(fail_so)
    with pytest.raises(WriteError) as caught:
        put_often(writer, lambda: None)
    assert caught.value is error
    writer.close()  # told once


def test_an_error_comes_back_at_the_end_if_not_before():
    writer = BackgroundWriter(2)
    writer.put(fail)
    with pytest.raises(WriteError, match="no space left"):
        writer.close()


def test_after_an_error_nothing_is_run():
    done = []
    writer = BackgroundWriter(10)
    writer.put(fail)
    with pytest.raises(WriteError):
        put_often(writer, lambda: done.append(1))
    writer.close()
    assert not done


def test_a_writer_that_fails_while_the_queue_is_full_lets_the_producer_go(gate):
    writer = held(2, gate)
    writer.put(fail)
    writer.put(lambda: None)
    outcome = []

    def produce():
        try:
            put_often(writer, lambda: None)
        except WriteError as error:
            outcome.append(str(error))

    producer = Thread(target=produce, daemon=True)
    producer.start()
    gate.set()
    producer.join(PATIENCE)
    assert outcome == ["no space left"]
    writer.close()


def test_closing_waits_for_what_is_queued(gate):
    done = []
    writer = held(5, gate)
    writer.put(lambda: done.append(1))
    gate.set()
    writer.close()
    assert done == [1]


def test_closing_twice_and_putting_after_it():
    writer = BackgroundWriter(2)
    writer.close()
    writer.close()
    with pytest.raises(WriteError, match="is closed"):
        writer.put(lambda: None)


def test_a_task_is_forgotten_when_it_is_done():
    """Or a batch would stay in memory while nothing is to do."""
    import weakref

    class Batch:
        def write(self):
            pass

    writer, batch = BackgroundWriter(2), Batch()
    gone = Event()
    weakref.finalize(batch, gone.set)
    writer.put(batch.write)
    del batch
    assert gone.wait(PATIENCE)
    writer.close()


@pytest.mark.parametrize(("task_bytes", "length"), [(0, 64), (1, 64), (64 << 20, 4), (128 << 20, 2), (1 << 40, 2)])
def test_the_queue_is_bounded_in_bytes(task_bytes, length):
    assert queue_length(task_bytes, free=0) == length


@pytest.mark.parametrize(("free", "length"), [(8 << 30, 4), (16 << 30, 8), (1 << 40, 64)])
def test_more_may_wait_where_memory_is_plentiful(free, length):
    assert queue_length(64 << 20, free) == length


def test_a_thread_without_tasks_is_idle_and_tells_so():
    idle, told = Event(), []
    writer = BackgroundWriter(2, lambda: (told.append(1), idle.set()), seconds=0.001)
    assert idle.wait(PATIENCE)
    writer.put(lambda: told.append(2))
    writer.close()
    assert 2 in told


def test_the_last_task_is_run_once_and_after_an_error_too():
    for task in (lambda: None, fail):
        done = []
        writer = BackgroundWriter(2, last=lambda done=done: done.append("last"))
        writer.put(task)
        with contextlib.suppress(WriteError):
            writer.close()
        with contextlib.suppress(WriteError):
            writer.close()
        assert done == ["last"]


def test_the_first_error_is_the_one_that_is_told():
    def fail_at_last():
        raise WriteError("because of the first")

    writer = BackgroundWriter(2, last=fail_at_last)
    writer.put(fail)
    with pytest.raises(WriteError, match="no space left"):
        writer.close()
    writer = BackgroundWriter(2, last=fail_at_last)
    with pytest.raises(WriteError, match="because of the first"):
        writer.close()


def test_after_an_error_the_thread_is_not_idle():
    failed, idle = Event(), []
    writer = BackgroundWriter(2, lambda: failed.is_set() and idle.append(1), seconds=0.001)

    def fail_and_tell():
        failed.set()
        raise WriteError("no space left")

    writer.put(fail_and_tell)
    with pytest.raises(WriteError):
        writer.close()
    assert not idle
