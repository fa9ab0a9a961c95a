"""How pictures look: every kind, of a small fixed store or table, against the picture that was looked at last.

When a picture is meant to change: `IBSTORE_NEW_LOOKS=1 pytest tests/analyze/test_looks.py`, and look at what is in
tests/analyze/looks before it is committed.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.testing.compare import compare_images

from ibstore.analyze import Study, plots
from ibstore.errors import UsageError

from .stores import make_store

LOOKS = Path(__file__).parent / "looks"
DPI = 50
TOLERANCE = 6.0
"""Root of the mean squared difference of pixels, of 255: other versions of matplotlib draw letters otherwise."""

N = 60
WAIST = "w: x=identity | exact; conv=maxpool(2, 2) | threshold(1.5); out=identity | uniform(bins=3, lo=0, hi=3)"
VALUES = "values: *=identity | exact"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two layers of whole numbers at three epochs; the last one comes to know the label."""
    random = np.random.default_rng(5)
    y = np.arange(N) % 3
    conv = random.integers(0, 4, (3, N, 3, 4, 4))
    out = random.integers(0, 3, (3, N, 3))
    for epoch in (1, 2):
        knows = np.arange(N) % 3 < epoch + 1
        out[epoch, :, 0] = np.where(knows, y, out[epoch, :, 0])
    layers = {"conv": conv.astype(np.float32), "out": out.astype(np.float32)}
    x = np.arange(N * 16, dtype=np.float32).reshape(N, 1, 4, 4) % 23
    return Study(make_store(tmp_path_factory.mktemp("looks") / "lab.zarr", x, y, layers=layers))


def of_store(study, kind):
    """Table of a kind that a store's layers make."""
    waist = VALUES if kind in {"units", "histogram", "samples"} else WAIST
    asked = study.ask(waist)
    measures = {"histogram": "histogram(bins=4)", "convergence": "convergence(15, 30, 60, repeats=4)"}
    measure = plots.MEASURES.get(kind)
    return asked.plane() if measure is None else asked.measure(measures.get(kind, measure))


def dynamics():
    rows = [
        {"run": "a", "variant": "epoch", "layer": layer, "unit": "nats", "epoch": epoch, "weight_norm": 1 + epoch / 50}
        | {
            "gradient_mean": 1 / (1 + epoch),
            "gradient_std": 0.1 * epoch,
            "snr": 10 / (1 + epoch) / epoch,
            "loss_kink": 5,
        }
        | {"snr_drop": 12 if layer == "out" else None}
        for layer in ("hidden", "out")
        for epoch in range(1, 30)
    ]
    return pl.DataFrame(rows)


def outcomes():
    rows = [
        {"run": f"{width}{dropout}{seed}", "split": "test", "epoch": 5, "seed": seed, "unit": "nats", "width": width}
        | {"dropout": dropout, "loss": 1 / width + 0.1 * seed, "accuracy": None, "error": 0.1 / width + 0.01 * seed}
        | {"noisy_loss": None, "kl": 5.0 * width + seed, "loss_and_kl": None}
        for width in (0.5, 1.0, 2.0)
        for dropout in ("binary", "information")
        for seed in (0, 1)
    ]
    return pl.DataFrame(rows)


def transmitted():
    rows = [
        {"run": f"b{beta}", "split": split, "epoch": 5, "layer": layer, "unit": "bits", "seed": 0, "beta_kl": beta}
        | {"gamma_tc": 0.0, "mean_kl": 100 / (1 + 10 * beta) / (1 + at), "tc": None, "tc_per_unit": 1 / (1 + beta)}
        | {"loss": 0.5, "accuracy": 0.9, "error": 0.1 + 0.02 * beta + 0.01 * (split == "test")}
        for beta in (0.0, 0.1, 1.0, 3.0)
        for split in ("train", "test")
        for at, layer in enumerate(("drop1", "drop2"))
    ]
    return pl.DataFrame(rows)


def correlation():
    rows = [
        {"run": f"b{beta}", "split": "train", "epoch": 5, "layer": "drop1.f", "channel": "all", "waist": "w"}
        | {"edges": "epoch", "unit": "bits", "seed": 0, "beta_kl": beta, "gamma_tc": 0.0, "n": 100, "units": 8}
        | {"constant": 0, "discrete": 8 / (1 + beta), "gaussian": 4 / (1 + beta)}
        | {"discrete_per_unit": 1 / (1 + beta), "gaussian_per_unit": 0.5 / (1 + beta)}
        for beta in (0.0, 0.5, 1.0)
    ]
    return pl.DataFrame(rows)


def maps():
    rows = [
        {"run": "a", "split": "train", "epoch": 1, "layer": layer, "unit": "bits", "sample": sample, "row": row}
        | {"column": column, "value": float((row * 3 + column * (sample + 1)) % 7)}
        for layer, size in (("x", 6), ("drop1.kl", 3))
        for sample in (0, 1)
        for row in range(size)
        for column in range(size)
    ]
    return pl.DataFrame(rows)


TABLES = {each.__name__: each for each in (dynamics, outcomes, transmitted, correlation, maps)}
OPTIONS = {"plane-mean": {"mean": True}, "plane-normalized": {"normalized": True}}


@pytest.mark.parametrize("name", [*plots.KINDS, *OPTIONS])
def test_a_picture_looks_as_it_did(study, name, tmp_path):
    kind = name.partition("-")[0]
    table = TABLES[kind]() if kind in TABLES else of_store(study, kind)
    if name == "plane-mean":
        table = pl.concat([table, table.with_columns(run=pl.lit("run1"), i_xt=pl.col("i_xt") * 0.9)])
    drawn, known = tmp_path / f"{name}.png", LOOKS / f"{name}.png"
    plots.figure(kind, table, **OPTIONS.get(name, {})).savefig(drawn, dpi=DPI)
    if os.environ.get("IBSTORE_NEW_LOOKS"):
        shutil.copy(drawn, known)
    expected = shutil.copy(known, tmp_path / "expected.png")  # what is compared leaves files beside it
    assert compare_images(str(expected), str(drawn), TOLERANCE) is None


def test_a_picture_that_looks_otherwise_is_seen(study, tmp_path):
    plots.figure("plane", of_store(study, "plane"), normalized=True).savefig(tmp_path / "a.png", dpi=DPI)
    expected = shutil.copy(LOOKS / "plane.png", tmp_path / "expected.png")
    assert compare_images(str(expected), str(tmp_path / "a.png"), TOLERANCE) is not None


def test_tables_of_other_measures_are_refused_by_what_a_kind_draws(study):
    """The plane and its curves draw the same table; no other kinds do."""
    tables = {kind: TABLES[kind]() if kind in TABLES else of_store(study, kind) for kind in plots.KINDS}
    for kind in plots.KINDS:
        for other, table in tables.items():
            if other != kind and {kind, other} != {"plane", "curves"}:
                with pytest.raises(UsageError, match=f"^{kind} draws .* the table of "):
                    plots.figure(kind, table)
