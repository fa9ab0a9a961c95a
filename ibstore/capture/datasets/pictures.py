"""Pictures in colour."""

from pathlib import Path
from typing import Final

import numpy as np

from ibstore.capture.datasets.places import readable
from ibstore.capture.datasets.samples import Dataset, Samples
from ibstore.errors import DatasetError

_REMEDY: Final = (
    "put its folder cifar-10-batches-py at DIR and give --data-dir DIR, or take --dataset mnist-sample-rgb32"
)


def cifar10(data_dir: Path | None, seed: int) -> Dataset:  # noqa: ARG001  (nothing is drawn)
    """CIFAR-10 by torchvision: 50,000 pictures, ids 0–49999, to train, 10,000, ids 50000–59999, to test.

    Pixels in [0, 1], (sample, 3, 32, 32). torchvision loads only files whose MD5 sums are those of the published ones.
    """
    if data_dir is None:
        raise DatasetError(f"cifar10 comes from a folder, and none was given; {_REMEDY}")
    train = _half(data_dir, train=True, first=0)
    return Dataset("cifar10", train, _half(data_dir, train=False, first=len(train)))


def _half(folder: Path, *, train: bool, first: int) -> Samples:
    from ibstore.capture._torchvision import torchvision_datasets

    datasets = torchvision_datasets()
    with readable("CIFAR-10", folder / "cifar-10-batches-py", _REMEDY):
        half = datasets.CIFAR10(folder, train=train, download=True)  # downloads only what is not in place
    x = np.ascontiguousarray(half.data.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)
    ids = np.arange(first, first + len(x), dtype=np.int64)
    return Samples(x, np.asarray(half.targets, np.int64), ids)
