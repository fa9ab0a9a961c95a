"""The finding of Information Dropout on real digits, shortened: what does not matter is forgotten first."""

from collections import OrderedDict

import pytest
from torch import nn

import ibstore
from ibstore.analyze import Study
from ibstore.capture import bottlenecks
from ibstore.capture.train import TrainSettings, train

BETAS = (0.0, 10.0, 300.0)
"""None, up to the knee, and beyond it: of divergences divided by 2,000 samples."""

EPOCHS = 10


def small() -> nn.Module:
    """Two convolutions and 32 softplus units with noise, for colour pictures of 32 × 32."""
    kind = bottlenecks.Kind("information", "softplus", 1.0, normalized=True)
    dense = kind.active(nn.Linear(16 * 8 * 8, 32), nn.BatchNorm1d(32))
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Sequential(kind.conv(3, 8), nn.MaxPool2d(2)),
            conv2=nn.Sequential(kind.conv(8, 16), nn.MaxPool2d(2)),
            flatten=nn.Flatten(),
            drop=kind.noisy(dense, lambda: nn.Linear(16 * 8 * 8, 32), seed=1),
            out=nn.Linear(32, 10),
        )
    )


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Numbers by β: mean KL, total correlation, error on the test split, and what z holds of the digit on top."""
    store = tmp_path_factory.mktemp("dropout") / "lab.zarr"
    recipe = ibstore.Recipe(
        name="small",
        description="",
        source="",
        model=small,
        weights={"beta_kl": 0.0, "gamma_tc": 0.0},
        layers=bottlenecks.recorded,
        dataset="occluded",
        epochs=EPOCHS,
        batch_size=50,
        lr=0.003,
        optimizer="Adam",
        loss="cross-entropy",
    )
    for beta in BETAS:
        given = {"options": {"beta_kl": beta}, "schedule": ibstore.Schedule.every(EPOCHS)}
        settings = TrainSettings.of(
            recipe, limit=2000, probe=1000, splits=("train", "test"), device="cpu", threads=1, **given
        )
        train(recipe, store, settings=settings, run=f"beta{beta}")
    asked = Study(store).ask("values: *=identity | exact", layers=["drop.z[0]"], epochs=[EPOCHS])
    told = asked.measure("transmitted").filter(split="test").sort("beta_kl").rows(named=True)
    read = {row["run"]: row for row in asked.probe("nuisance").iter_rows(named=True)}
    return [{**row, "nuisance": read[row["run"]]} for row in told]


@pytest.mark.xdist_group("information-dropout")
def test_less_is_transmitted_and_units_come_apart(sweep):
    kl, correlation = ([row[name] for row in sweep] for name in ("mean_kl", "tc_per_unit"))
    assert kl[0] > 2 * kl[1] > 8 * kl[2] > 0
    assert correlation[0] > 1.3 * correlation[1] > 2.6 * correlation[2]


@pytest.mark.xdist_group("information-dropout")
def test_the_nuisance_goes_first(sweep):
    information = [row["nuisance"]["information"] for row in sweep]
    assert information[0] > 0.1
    assert information[1] < information[0] / 2
    assert information[2] < 0.02
    assert sweep[0]["nuisance"]["accuracy"] > sweep[1]["nuisance"]["accuracy"] > sweep[2]["nuisance"]["accuracy"]


@pytest.mark.xdist_group("information-dropout")
def test_the_main_task_holds_up_to_the_knee(sweep):
    error = [row["error"] for row in sweep]
    assert error[1] < error[0] + 0.02
    assert error[2] > error[1]
