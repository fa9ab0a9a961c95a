from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibstore.capture.schedule import Schedule
from ibstore.errors import UsageError

NUMBERS = st.integers(1, 300)
LISTS = st.lists(st.integers(0, 400), min_size=1, unique=True).map(sorted).map(tuple)
UNITS = st.sampled_from(["steps", "epochs"])
UNBOUND = st.builds(Schedule, st.sampled_from(["every", "log"]), st.tuples(NUMBERS), UNITS)
SCHEDULES = UNBOUND | st.builds(Schedule, st.just("list"), LISTS, UNITS)


def totals(schedule):
    """Lengths of a training that the schedule fits."""
    return st.integers(schedule.numbers[-1] if schedule.kind == "list" else 0, 500)


SCHEDULED = SCHEDULES.flatmap(lambda schedule: st.tuples(st.just(schedule), totals(schedule)))


@given(SCHEDULES)
def test_a_schedule_is_written_as_it_is_read(schedule):
    assert Schedule.parse(str(schedule)) == schedule


@pytest.mark.parametrize(
    ("text", "schedule", "written"),
    [
        ("every:10", Schedule("every", (10,), "epochs"), "every:10"),
        ("every:10@epochs", Schedule.every(10), "every:10"),
        ("every:10@steps", Schedule.every(10, "steps"), "every:10@steps"),
        ("log:200", Schedule("log", (200,), "steps"), "log:200"),
        ("log:200@epochs", Schedule("log", (200,), "epochs"), "log:200@epochs"),
        (" list:0,1, 2,10 ", Schedule("list", (0, 1, 2, 10), "epochs"), "list:0,1,2,10"),
        ("list:7@steps", Schedule("list", (7,), "steps"), "list:7@steps"),
    ],
)
def test_texts(text, schedule, written):
    assert Schedule.parse(text) == schedule
    assert str(schedule) == written


@given(SCHEDULED)
def test_points_grow_from_the_untrained_network_to_the_trained_one(scheduled):
    schedule, total = scheduled
    points = schedule.points(total)
    assert points[0] == 0
    assert points[-1] == total
    assert all(before < after for before, after in pairwise(points))


@given(SCHEDULED)
def test_a_point_is_due_exactly_when_it_is_among_the_points(scheduled):
    schedule, total = scheduled
    assert tuple(point for point in range(-2, total + 3) if schedule.due(point, total)) == schedule.points(total)


@given(SCHEDULED)
def test_without_a_known_end_the_same_points_are_due_before_it(scheduled):
    schedule, total = scheduled
    if schedule.kind != "log":
        assert [point for point in range(total) if schedule.due(point, None)] == list(schedule.points(total)[:-1])


@given(NUMBERS, st.integers(0, 1000))
def test_every_counts_in_equal_steps(number, total):
    points = Schedule.every(number).points(total)
    assert set(points) == {point for point in range(total + 1) if point % number == 0} | {total}


@given(LISTS, st.integers(0, 100))
def test_a_list_is_itself_with_both_ends(numbers, more):
    total = numbers[-1] + more
    assert set(Schedule("list", numbers, "epochs").points(total)) == {0, total} | set(numbers)


@given(st.integers(2, 300), st.integers(1, 10**6))
def test_logarithmic_points_are_those_of_numpy(number, total):
    points = Schedule("log", (number,), "steps").points(total)
    expected = {int(point) for point in np.rint(np.geomspace(1, total, number))}
    assert len(points) <= number + 1
    # the two may round another way what lies in the middle between two integers
    assert all(min(abs(point - other) for other in expected) <= 1 for point in points[1:])
    assert abs(len(points) - 1 - len(expected)) <= 1


def test_logarithmic_points_in_closed_form():
    assert Schedule.parse("log:11").points(1024) == (0, *(2**k for k in range(11)))
    assert Schedule.parse("log:7").points(10**6) == (0, *(10**k for k in range(7)))
    assert Schedule.parse("log:1").points(50) == (0, 50)


@pytest.mark.parametrize("number", [1000, 10**15])
def test_more_logarithmic_points_than_there_are_steps_are_all_steps(number):
    assert Schedule("log", (number,), "steps").points(100) == tuple(range(101))


@given(st.integers(2, 60))
def test_all_steps_come_where_the_short_way_begins(total):
    number = int(total * np.log(total)) + 1  # the last number that is reckoned point by point
    expected = {round(total ** (k / (number - 1))) for k in range(number)}
    assert expected == set(range(1, total + 1))
    assert Schedule("log", (number,), "steps").points(total) == tuple(range(total + 1))


def test_nothing_is_trained():
    assert [Schedule.parse(text).points(0) for text in ("every:3", "log:10", "list:0")] == [(0,)] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "schedule '' cannot be read; write every:10, log:200 or list:0,1,2,5,10"),
        ("10", "schedule '10' cannot be read"),
        (3, "schedule 3 cannot be read"),
        ("often:10", "schedule 'often:10' cannot be read"),
        ("every:", "schedule 'every:' has something that is no integer"),
        ("every:1.5", "no integer"),
        ("list:1,,2", "no integer"),
        ("every:" + "1" * 5000, "no integer"),
        ("every:0", "schedule every:0 has no single number from 1 on; write it as every:10"),
        ("log:-3", "schedule log:-3 has no single number from 1 on"),
        ("every:1,2", "schedule every:1,2 has no single number"),
        ("list:-1,2", "schedule list:-1,2 has no list of points from 0 on"),
        ("list:0,5,2", "schedule list:0,5,2 has point 2 after 5; give each once, in growing order"),
        ("list:0,5,5", "schedule list:0,5,5 has point 5 twice"),
        ("every:1@batches", "schedule every has the unit 'batches'; count in steps or epochs"),
        ("every:1@", "schedule every has the unit ''"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, message):
    with pytest.raises(UsageError) as error:
        Schedule.parse(text)
    assert message in str(error.value)


def test_a_schedule_that_is_made_by_hand_is_checked_too():
    with pytest.raises(UsageError, match="there is no schedule 'often'"):
        Schedule("often", (1,), "steps")
    with pytest.raises(UsageError, match="no single number from 1 on"):
        Schedule.every(0)
    with pytest.raises(UsageError, match="no list of points"):
        Schedule("list", (), "steps")


def test_a_point_after_the_end_is_refused():
    with pytest.raises(UsageError, match=r"list:0,10@steps has point 10, but the training ends after 5 steps; leave"):
        Schedule.parse("list:0,10@steps").points(5)
    with pytest.raises(UsageError, match="a training of -1 epochs has no capture points"):
        Schedule.every(1).points(-1)


def test_a_logarithmic_schedule_needs_the_end():
    with pytest.raises(UsageError, match="schedule log:5 spreads its points up to the end of the training"):
        Schedule.parse("log:5").due(1, None)
