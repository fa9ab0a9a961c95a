"""The short version of `make kills`."""

from tests.kills import Tally, kill_often


def test_killed_captures_lose_nothing_and_end_like_undisturbed_ones(tmp_path):
    tally = kill_often(tmp_path, kills=10, epochs=4, seed=1, jobs=2)
    assert (tally.lost, tally.unreadable, tally.faults) == (0, 0, [])
    assert tally.kills >= 10
    assert tally.completed >= 2


def test_tallies_add_up():
    total = Tally.sum([Tally(3, 1, 0, 2, ["a"]), Tally(4, 0, 2, 1, ["b"])])
    assert str(total) == "kills 7, epochs lost 1, stores unreadable 2, runs completed 3, faults 2\na\nb"
