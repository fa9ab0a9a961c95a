"""Figures of the MNIST thesis on the real digits, where they are at hand."""

from pathlib import Path

import numpy as np
import pytest

from ibstore.analyze import Study

from .stores import make_store

DIGITS = Path(__file__).parents[3] / "shared" / "data" / "MNIST" / "raw"


def idx(name, header):
    return np.frombuffer((DIGITS / name).read_bytes(), np.uint8, offset=header)


@pytest.mark.skipif(not DIGITS.exists(), reason=f"MNIST is not at {DIGITS}")
def test_entropies_of_the_60_000_training_digits(tmp_path):
    x = idx("train-images-idx3-ubyte", 16).reshape(-1, 28, 28) / np.float32(255)
    y = idx("train-labels-idx1-ubyte", 8)
    path = make_store(tmp_path / "lab.zarr", x, y, layers={"label": y[None, :, None]})
    [row] = (
        Study(path).analyze("w: x=maxpool(4, 4) | threshold(0.5); *=identity | labels", unit="nats").rows(named=True)
    )
    assert row["n"] == 60_000
    assert round(row["h_x"], 4) == 9.5308
    assert round(row["h_y"], 4) == 2.3012
    assert row["h_t"] == row["i_ty"] == row["h_y"]
