"""Pictures with something in them that does not matter: digits among clutter, pictures under digits.

What does not matter is known, and kept as targets of the samples.
"""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ibstore.capture.datasets.digits import SIDE, mnist_or_sample
from ibstore.capture.datasets.draws import generator
from ibstore.capture.datasets.pictures import cifar10
from ibstore.capture.datasets.samples import Dataset, Samples

CANVAS: Final = 96
DISTRACTORS: Final = 21
PATCH: Final = 8
"""Sides of a cluttered picture and of the pieces of other digits in it, and how many of these there are."""

PICTURE: Final = 32

Pixels = NDArray[np.float32]


def cluttered(data_dir: Path | None, seed: int) -> Dataset:
    """Each digit at a random place of 96 × 96 among 21 pieces of other digits of its split: (sample, 1, 96, 96).

    Of MNIST in ``data_dir``, or of `mnist_sample` without one. Targets: ``row`` and ``column`` of the digit's corner.
    Where pieces (8 × 8) and digit meet, the brighter pixel stands.
    """
    digits = mnist_or_sample(data_dir, seed)
    train, test = (
        _cluttered(samples, generator(seed, f"cluttered {split}")) for split, samples in _halves(digits).items()
    )
    return Dataset(f"cluttered-of-{digits.name}", train, test)


def occluded(data_dir: Path | None, seed: int) -> Dataset:
    """CIFAR-10 with a white digit over each picture: (sample, 3, 32, 32), labelled by the picture.

    Target ``nuisance``: the digit's class. Where ``data_dir`` has no CIFAR-10, and without one, a stand-in of that
    shape, which the name tells: the pictures are digits too, in a random colour on a ground that is darker.
    """
    digits = mnist_or_sample(data_dir, seed)
    if data_dir is not None and (data_dir / "cifar-10-batches-py").is_dir():
        pictures = cifar10(data_dir, seed)
        name, note = f"occluded-cifar10-by-{digits.name}", ""
    else:
        pictures = _stand_in(digits, seed)
        name = f"occluded-stand-in-of-{digits.name}"
        note = f"{name}: digits in colour stand in for the pictures; put cifar-10-batches-py at DIR for --data-dir DIR"
    over, under = _halves(digits), _halves(pictures)
    train, test = (
        _occluded(under[split], over[split], generator(seed, f"occluded {split}")) for split in ("train", "test")
    )
    return Dataset(name, train, test, note)


def _halves(data: Dataset) -> dict[str, Samples]:
    return {"train": data.train, "test": data.test}


def _cluttered(digits: Samples, random: np.random.Generator) -> Samples:
    count, room = len(digits), CANVAS - SIDE + 1
    pixels = digits.x[:, 0]
    canvas = np.zeros((count, CANVAS, CANVAS), np.float32)
    others = (np.arange(count)[:, None] + random.integers(1, max(2, count), (count, DISTRACTORS))) % count
    cuts = random.integers(0, SIDE - PATCH + 1, (count, DISTRACTORS, 2))
    places = random.integers(0, CANVAS - PATCH + 1, (count, DISTRACTORS, 2))
    corners = random.integers(0, room, (count, 2))
    for sample in range(count):
        for other, cut, place in zip(others[sample], cuts[sample], places[sample], strict=True):
            _lay(canvas[sample], _piece(pixels[other], cut, PATCH), place)
        _lay(canvas[sample], pixels[sample], corners[sample])
    targets = {name: corners[:, axis].astype(np.float64) for axis, name in enumerate(("row", "column"))}
    return Samples(canvas[:, None], digits.y, digits.sample, targets)


def _piece(picture: Pixels, corner: NDArray[np.int64], side: int) -> Pixels:
    row, column = corner
    return picture[row : row + side, column : column + side]


def _lay(canvas: Pixels, picture: Pixels, corner: NDArray[np.int64]) -> None:
    """Lay a picture on a canvas; the brighter pixel stands."""
    place = _piece(canvas, corner, picture.shape[-1])
    np.maximum(place, picture, out=place)


def _occluded(pictures: Samples, digits: Samples, random: np.random.Generator) -> Samples:
    chosen = random.integers(0, len(digits), len(pictures))
    corners = random.integers(0, PICTURE - SIDE + 1, (len(pictures), 2))
    x = pictures.x.copy()
    for sample, (digit, corner) in enumerate(zip(chosen, corners, strict=True)):
        for channel in x[sample]:
            _lay(channel, digits.x[digit, 0], corner)
    return Samples(x, pictures.y, pictures.sample, {"nuisance": digits.y[chosen].astype(np.float64)})


def _stand_in(digits: Dataset, seed: int) -> Dataset:
    """Digits in colour, at 32 × 32, as pictures that another digit shall lie on."""
    train, test = (
        _coloured(samples, generator(seed, f"coloured {split}")) for split, samples in _halves(digits).items()
    )
    return Dataset("coloured", train, test)


def _coloured(digits: Samples, random: np.random.Generator) -> Samples:
    count, edge = len(digits), (PICTURE - SIDE) // 2
    ink = random.uniform(0.4, 0.8, (count, 3, 1, 1)).astype(np.float32)
    ground = random.uniform(0.0, 0.3, (count, 3, 1, 1)).astype(np.float32)
    drawn = np.pad(digits.x, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    return Samples(ground + drawn * (ink - ground), digits.y, digits.sample)
