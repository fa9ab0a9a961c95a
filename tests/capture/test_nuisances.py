"""Digits among clutter, and pictures under digits: what does not matter is known."""

import numpy as np
import pytest

from ibstore.capture.datasets import digits as digit_sets
from ibstore.capture.datasets import load_dataset, nuisances
from ibstore.capture.datasets.samples import Dataset, Samples


@pytest.fixture
def few(monkeypatch):
    """Twenty digits to train and ten to test, so that nothing takes long."""
    digits = load_dataset("mnist-sample")
    some = Dataset("mnist-sample", digits.train.first(20), digits.test.first(10))
    monkeypatch.setattr(digit_sets, "mnist_sample", lambda *_: some)
    return some


def test_a_digit_lies_where_its_targets_say(few):
    data = load_dataset("cluttered-mnist", seed=2)
    assert data.name == "cluttered-of-mnist-sample"
    for samples, digits in ((data.train, few.train), (data.test, few.test)):
        assert samples.x.shape == (len(digits), 1, 96, 96)
        assert (samples.x.min(), samples.x.max()) == (0, 1)
        np.testing.assert_array_equal(samples.y, digits.y)
        for number, (x, digit) in enumerate(zip(samples.x[:, 0], digits.x[:, 0], strict=True)):
            row, column = (int(samples.targets[name][number]) for name in ("row", "column"))
            assert (x[row : row + 28, column : column + 28] >= digit).all()


def test_clutter_is_pieces_of_other_digits(few):
    """Without its own digit a picture has at most 21 pieces of 8 × 8 of ink, and nearly as many where none overlap."""
    x = load_dataset("cluttered-mnist", seed=2).train
    inked = []
    for number in range(len(x)):
        row, column = (int(x.targets[name][number]) for name in ("row", "column"))
        around = x.x[number, 0].copy()
        around[row : row + 28, column : column + 28] = 0
        inked.append((around > 0).sum())
    assert min(inked) > 0
    assert 100 < np.mean(inked) <= 21 * 64


def test_digits_lie_at_all_places(few):
    corners = np.stack([load_dataset("cluttered-mnist", seed=seed).train.targets["row"] for seed in range(5)]).ravel()
    assert corners.min() < 10
    assert 58 < corners.max() <= 96 - 28


@pytest.mark.parametrize("name", ["cluttered-mnist", "occluded"])
def test_other_seeds_make_other_pictures_of_the_same_digits(few, name):
    one, other = load_dataset(name, seed=0).train, load_dataset(name, seed=1).train
    np.testing.assert_array_equal(one.y, other.y)
    assert not np.array_equal(one.x, other.x)


def test_the_stand_in_says_so_and_holds_both_digits(few):
    data = load_dataset("occluded", seed=3)
    assert data.name == "occluded-stand-in-of-mnist-sample"
    x, nuisance = data.train.x, data.train.targets["nuisance"]
    assert x.shape == (20, 3, 32, 32)
    assert set(nuisance) <= set(range(10))
    # White ink is of the digit that lies over the picture: all channels alike, and brighter than the picture can be.
    white = (x > 0.8).all(1)
    assert (np.ptp(x.transpose(0, 2, 3, 1)[white & (x > 0.95).all(1)], axis=1) < 0.05).all()
    amounts = np.array([(digit > 0.8).sum() for digit in few.train.x[:, 0]])
    for ink, label in zip(white.sum((1, 2)), nuisance, strict=True):
        assert ink in amounts[few.train.y == label]


def test_what_lies_over_hangs_not_on_what_lies_under(few):
    labels = [load_dataset("occluded", seed=seed).train for seed in range(40)]
    y = np.concatenate([one.y for one in labels])
    nuisance = np.concatenate([one.targets["nuisance"] for one in labels])
    assert abs(np.corrcoef(y, nuisance)[0, 1]) < 0.12


def test_pictures_of_cifar_are_taken_where_they_are(few, monkeypatch, tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    grey = Samples(np.full((4, 3, 32, 32), 0.5, np.float32), np.arange(4), np.arange(4))
    monkeypatch.setattr(nuisances, "cifar10", lambda *_: Dataset("cifar10", grey, grey))
    monkeypatch.setattr(digit_sets, "mnist", lambda *_: few)
    data = load_dataset("occluded", tmp_path)
    assert data.name == "occluded-cifar10-by-mnist-sample"
    assert (data.train.x.min(), data.train.x.max()) == (0.5, 1.0)
    assert data.train.y.tolist() == [0, 1, 2, 3]
