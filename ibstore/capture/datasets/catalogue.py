"""Data sets by name, as declared data: a list of them imports neither numpy nor torch.

A loader is a function from the user's data folder (or None) and a seed to a `Dataset`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ibstore.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from ibstore.capture.datasets.samples import Dataset


@dataclass(frozen=True, slots=True)
class Entry:
    """A data set that can be asked for by name.

    Parameters
    ----------
    loader
        Its loader, as ``module:function`` of this package.
    description
        One sentence for a listing.
    from_folder
        Whether it looks for files in the user's folder.
    """

    loader: str
    description: str
    from_folder: bool = True

    def load(self, data_dir: Path | None, seed: int) -> "Dataset":
        """The whole data set, from the files in ``data_dir`` where it needs some."""
        module, _, function = self.loader.partition(":")
        loader: Callable[[Path | None, int], Dataset] = getattr(import_module(f"{__package__}.{module}"), function)
        return loader(data_dir, seed)


LOADERS: Final[Mapping[str, Entry]] = {
    "blackbox-complicated": Entry(
        "blackbox:complicated", "1,000 rows of 12 integers in −1 … 3, labelled by a sum of products of each row.", False
    ),
    "blackbox-printed": Entry(
        "blackbox:printed",
        "blackbox-complicated as printed: its sum runs over all rows, labels hang on one column.",
        False,
    ),
    "blackbox-simple": Entry(
        "blackbox:simple", "1,000 rows of 12 integers in −1 … 3, labelled by each row's mean.", False
    ),
    "cifar10": Entry("pictures:cifar10", "60,000 colour pictures of 32 × 32 in 10 classes, in --data-dir."),
    "cifar10-zca": Entry("pictures:cifar10_zca", "cifar10 whitened: without the correlations of its pixels."),
    "cluttered-mnist": Entry(
        "nuisances:cluttered", "Digits at random places of 96 × 96 among 21 pieces of others, of mnist or mnist-sample."
    ),
    "mnist": Entry("digits:mnist", "70,000 handwritten digits of 28 × 28, in --data-dir or downloaded."),
    "mnist-sample": Entry("digits:mnist_sample", "5,000 handwritten digits that come with the installation.", False),
    "mnist-sample-rgb32": Entry("digits:mnist_sample_rgb32", "mnist-sample at 32 × 32 in three equal channels.", False),
    "mnist14": Entry("digits:mnist14", "1,000 random digits of mnist in --data-dir or of mnist-sample, 14 × 14."),
    "occluded": Entry(
        "nuisances:occluded", "cifar10 in --data-dir under digits; without it digits in colour under digits."
    ),
    "szt": Entry("twelve_bits:szt", "All 4,096 patterns of 12 bits: var_u.mat in --data-dir, or generated."),
}


def dataset_names() -> list[str]:
    """Names that `load_dataset` takes."""
    return sorted(LOADERS)


def load_dataset(
    name: str,
    data_dir: str | Path | None = None,
    *,
    limit: int | None = None,
    fraction: float | None = None,
    seed: int = 0,
) -> "Dataset":
    """Data set of that name.

    Parameters
    ----------
    name
        One of `dataset_names`.
    data_dir
        Folder that holds (or shall hold) the files of a data set that no package ships.
    limit
        Keep at most the first so many training samples.
    fraction
        Train on that part of them alone: see `Dataset.fraction`.
    seed
        Of data that are generated, and of what is drawn.

    Raises
    ------
    UnknownNameError
        When there is no data set of that name.
    DatasetError
        When its files are neither in place nor to be had.
    UsageError
        When ``limit`` is smaller than 1, ``fraction`` not within (0, 1], or ``seed`` no integer from 0, or when there
        is a ``data_dir`` and the data set has no files.
    """
    try:
        entry = LOADERS[name]
    except KeyError:
        raise UnknownNameError(f"there is no data set {name!r}; choose one of {', '.join(dataset_names())}") from None
    if data_dir is not None and not entry.from_folder:
        folders = [each for each, other in LOADERS.items() if other.from_folder]
        raise UsageError(
            f"data set {name!r} has no files to look for in {data_dir}; leave --data-dir out, or choose another "
            f"--dataset: {', '.join(sorted(folders))}"
        )
    return entry.load(None if data_dir is None else Path(data_dir), seed).limited(limit).fraction(fraction, seed)
