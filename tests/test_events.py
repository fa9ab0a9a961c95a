from dataclasses import FrozenInstanceError

import pytest

from ibstore.events import Event, ignore


@pytest.mark.parametrize(("done", "total", "fraction"), [(0, 4, 0.0), (1, 4, 0.25), (4, 4, 1.0), (0, 0, 0.0)])
def test_a_step_knows_how_far_the_work_is(done, total, fraction):
    assert Event("analyze", done, total).fraction == fraction


def test_a_notice_is_a_sentence_without_progress():
    assert Event("notice", detail="removing run 'seed0' (3 epochs)").is_notice
    assert not Event("record", 0, 4).is_notice


def test_an_event_cannot_be_changed_by_who_hears_it():
    event = Event("record", 1, 2)
    with pytest.raises(FrozenInstanceError):
        event.done = 2


def test_nobody_need_listen():
    assert ignore(Event("record", 1, 2)) is None
