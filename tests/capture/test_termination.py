import os
import signal
import threading

import pytest

from ibstore.capture.termination import CODE, Terminated, forget_sigterm, leave_on_sigterm, sigterm_waits


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def leaving():
    leave_on_sigterm()
    yield
    forget_sigterm()


def test_sigterm_means_to_leave_while_anyone_wants_that():
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    leave_on_sigterm()
    leave_on_sigterm()
    forget_sigterm()
    with pytest.raises(Terminated) as ending:
        terminate()
    assert ending.value.code == CODE == 143
    forget_sigterm()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_of_ones_own_stays():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        leave_on_sigterm()
        terminate()
        forget_sigterm()
        terminate()
        assert heard == [signal.SIGTERM, signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_sigterm_waits_for_the_end_of_the_block(leaving):
    done = []

    def work():
        with sigterm_waits():
            with sigterm_waits():
                terminate()
                done.append("inner")
            done.append("outer")
        done.append("never")

    with pytest.raises(Terminated):
        work()
    assert done == ["inner", "outer"]
    with sigterm_waits():  # asked once, told once
        done.append("later")
    assert done[-1] == "later"


def test_an_error_in_the_block_is_not_hidden_and_the_signal_not_forgotten(leaving):
    def work():
        with sigterm_waits():
            terminate()
            raise KeyError("mine")

    with pytest.raises(Terminated) as ending:
        work()
    assert isinstance(ending.value.__context__, KeyError)


def test_another_thread_does_not_hold_it_back(leaving):
    held, go = threading.Event(), threading.Event()

    def hold():
        with sigterm_waits():
            held.set()
            go.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    with pytest.raises(Terminated):
        terminate()
    go.set()
    thread.join(30)
    assert not thread.is_alive()
