"""What a training needs to go on lies beside the store, for one epoch at a time, and is gone at the end."""

import pytest

from ibstore.store.places import open_storage
from ibstore.store.states import States


@pytest.fixture
def storage(location):
    return open_storage(location)


def test_a_state_is_kept_for_its_epoch(storage):
    states = States(storage, "run0")
    assert states.get(3) is None
    states.put(3, b"three")
    states.put(4, b"four")
    assert (states.get(3), states.get(4), states.get(5)) == (b"three", b"four", None)
    assert storage.files("") == {}
    assert states.where() == f"{storage.beside('.resume').location}/run0"


def test_a_state_is_put_anew(storage):
    states = States(storage, "run0")
    states.put(3, b"first")
    states.put(3, b"again")
    assert states.get(3) == b"again"


def test_those_before_are_dropped_and_at_the_end_all(storage):
    states = States(storage, "run0")
    states.drop()
    for epoch in (3, 4, 5):
        states.put(epoch, b"state")
    states.drop(keep=5)
    assert [states.get(epoch) for epoch in (3, 4, 5)] == [None, None, b"state"]
    states.drop()
    assert not storage.beside(".resume").exists()  # nothing is left, not even a folder


def test_runs_have_states_of_their_own(storage):
    one, other = States(storage, "seed 0"), States(storage, "seed 0/b")
    one.put(1, b"one")
    other.put(1, b"other")
    assert (one.get(1), other.get(1)) == (b"one", b"other")
    one.drop()
    assert (one.get(1), other.get(1)) == (None, b"other")
