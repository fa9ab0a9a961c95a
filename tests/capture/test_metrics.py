import numpy as np
import pytest
import torch

from ibstore.capture.metrics import Means, by_split
from ibstore.errors import CaptureError


@pytest.mark.parametrize("number", [1, 0.5, np.float32(0.5), np.int64(3), torch.tensor(0.5, requires_grad=True)])
def test_every_kind_of_number_is_one(number):
    found = by_split("train", {"loss": number})["train"]["loss"]
    assert (found, type(found)) == (number, float)


def test_a_mapping_belongs_to_the_split_of_its_name():
    assert by_split("a", {"loss": 1, "b": {"loss": 2}, "a": {"accuracy": 3}}) == {
        "a": {"loss": 1, "accuracy": 3},
        "b": {"loss": 2},
    }


@pytest.mark.parametrize("wrong", [True, None, "0.1", [0.1], 1j, torch.ones(2), torch.tensor(True), {"deep": {}}])
def test_what_is_no_number_is_refused_by_name(wrong):
    with pytest.raises(CaptureError, match=r"metric '(loss|deep)' is .*, which is no number"):
        by_split("train", {"loss": wrong})


def test_a_metric_given_twice_is_refused():
    with pytest.raises(CaptureError, match="metric 'loss' of split 'train' is given twice"):
        by_split("train", {"loss": 1, "train": {"loss": 2}})


def test_means_weigh_batches_by_their_samples():
    means = Means()
    means.add({"loss": torch.tensor(1.0)}, 3)
    means.add({"loss": 5.0}, 1)
    assert means.result() == {"loss": 2.0}
    assert Means().result() == {}


@pytest.mark.parametrize("name", ["run", "Split", "epoch", "step", ""])
def test_a_metric_cannot_have_the_name_of_a_column(name):
    with pytest.raises(CaptureError, match="rename it"):
        by_split("train", {"test": {name: 0.5}})


def test_metrics_that_sql_cannot_tell_apart_are_refused():
    with pytest.raises(CaptureError, match="given twice"):
        by_split("train", {"test": {"Loss": 0.5, "loss": 0.5}})
