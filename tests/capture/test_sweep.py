"""Trainings one after another."""

import pytest

from ibstore.capture.sweep import combinations, named, sorted_out
from ibstore.errors import UsageError


def test_without_a_sweep_there_is_one_training():
    assert list(combinations([])) == [{}]


def test_ranges_have_both_ends_and_may_stand_among_values():
    assert [found["seed"] for found in combinations(["seed=0:3,7"])] == ["0", "1", "2", "3", "7"]


def test_every_combination_is_there_once():
    found = list(combinations(["lr=0.1,0.01", "hidden-layers=1:3", "activation=tanh,relu"]))
    assert len(found) == len({tuple(each.items()) for each in found}) == 12
    assert all(list(each) == ["lr", "hidden_layers", "activation"] for each in found)


def test_values_have_their_settings_types():
    found = sorted_out({"lr": "1e-3", "epochs": "3", "optimizer": "SGD", "activation": "relu"})
    assert found == {"lr": 0.001, "epochs": 3, "optimizer": "SGD", "options": {"activation": "relu"}}
    assert sorted_out({}) == {}


def test_names_tell_combinations_apart():
    names = [named("szt", each) for each in combinations(["lr=0.1,0.01", "hidden_layers=1,2"])]
    assert names == [
        "szt-lr0.1-hidden_layers1",
        "szt-lr0.1-hidden_layers2",
        "szt-lr0.01-hidden_layers1",
        "szt-lr0.01-hidden_layers2",
    ]


@pytest.mark.parametrize(
    ("sweeps", "message"),
    [
        (["lr"], "sweep 'lr' cannot be read; write NAME=VALUE,VALUE or NAME=FIRST:LAST"),
        (["=1"], "cannot be read"),
        (["lr="], "cannot be read"),
        (["lr=0.1,"], "cannot be read"),
        (["seed=1,0:2"], "has a value twice"),
        (["seed=3:1"], "range '3:1' ends before it begins"),
        (["seed=0:99999999999999"], "range '0:99999999999999' has 100,000,000,000,000 values; sweep 10,000 at most"),
        (["lr=1", "lr=2"], "swept twice"),
    ],
)
def test_what_cannot_be_read_is_refused(sweeps, message):
    with pytest.raises(UsageError, match=message):
        list(combinations(sweeps))


def test_words_are_no_numbers():
    with pytest.raises(UsageError, match="lr is swept over 'fast', which is no float"):
        sorted_out({"lr": "fast"})
