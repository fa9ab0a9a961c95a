"""Pictures in colour."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from ibstore.capture.datasets.places import readable
from ibstore.capture.datasets.samples import Dataset, Samples
from ibstore.errors import DatasetError

FLOOR: Final = 0.01
"""ε of the whitening, of pixels within [0, 1]: chosen here, the source is silent."""

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


def cifar10_zca(data_dir: Path | None, seed: int) -> Dataset:
    """CIFAR-10 without the correlations of its pixels: W (x − m), (sample, 3, 32, 32).

    m is the mean of the training pictures, and W = (C + ε)^(−½) of their covariance C the whitening that changes them
    least (zero-phase, ZCA); ε = 0.01 keeps directions in which they hardly differ from becoming all noise.
    """
    data = cifar10(data_dir, seed)
    return Dataset("cifar10-zca", *whitened(data.train, data.test))


def whitened(train: Samples, test: Samples) -> tuple[Samples, Samples]:
    """Both as `cifar10_zca` has them, by the mean and the covariance of the first."""
    from scipy.linalg import eigh

    known = train.x.reshape(len(train), -1)
    mean = known.mean(0)
    centred = known - mean
    variances, axes = eigh((centred.T @ centred / len(known)).astype(np.float64))
    whitening = ((axes / np.sqrt(np.maximum(variances, 0) + FLOOR)) @ axes.T).astype(np.float32)
    one, other = (
        replace(each, x=((each.x.reshape(len(each), -1) - mean) @ whitening).reshape(each.x.shape))
        for each in (train, test)
    )
    return one, other


def _half(folder: Path, *, train: bool, first: int) -> Samples:
    from ibstore.capture._torchvision import torchvision_datasets

    datasets = torchvision_datasets()
    with readable("CIFAR-10", folder / "cifar-10-batches-py", _REMEDY):
        half = datasets.CIFAR10(folder, train=train, download=True)  # downloads only what is not in place
    x = np.ascontiguousarray(half.data.transpose(0, 3, 1, 2)).astype(np.float32) / np.float32(255)
    ids = np.arange(first, first + len(x), dtype=np.int64)
    return Samples(x, np.asarray(half.targets, np.int64), ids)
