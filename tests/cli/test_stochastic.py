"""Stochastic layers from the command line: trained, asked, read and drawn."""

import json
from pathlib import Path
from typing import Any

import pytest

from ibstore.capture.recipes import recipe
from ibstore.capture.train import TrainSettings, train
from ibstore.store import Store
from tests.conftest import Command

RUNS = [f"info-dropout-mnist-beta_kl{beta}-seed0" for beta in ("0", "10")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> str:
    store = str(tmp_path_factory.mktemp("stochastic") / "lab.zarr")
    for run, beta in zip(RUNS, (0.0, 10.0), strict=True):
        own = settings(options={"width": 0.1, "beta_kl": beta}, probe=30, splits=("train", "test"))
        train("info-dropout-mnist", store, settings=own, run=run)
    return store


def settings(**given: Any) -> TrainSettings:
    short: dict[str, Any] = {"epochs": 1, "limit": 40, "device": "cpu", "threads": 1}
    return TrainSettings.of(recipe("info-dropout-mnist"), **short | given)


def asked(ibstore: Command, *arguments: str) -> list[dict[str, object]]:
    done = ibstore(*arguments, "--quiet", "--format", "json")
    assert (done.code, done.err) == (0, "")
    rows: list[dict[str, object]] = json.loads(done.out)
    return rows


def test_what_is_transmitted_stands_beside_beta_and_error(ibstore: Command, lab: str) -> None:
    rows = asked(ibstore, "measure", lab, "transmitted", "--epoch", "1")
    assert [row["run"] for row in rows[::6]] == RUNS
    assert [row["layer"] for row in rows[:6]] == ["drop1", "drop2", "drop3"] * 2
    assert {(row["run"], row["beta_kl"]) for row in rows} == {(RUNS[0], 0.0), (RUNS[1], 10.0)}
    assert all(row["error"] == pytest.approx(1 - float(str(row["accuracy"]))) for row in rows)


def test_outcomes_are_the_last_metrics_beside_what_differs(ibstore: Command, lab: str) -> None:
    rows = asked(ibstore, "measure", lab, "outcomes")
    assert [(row["run"], row["split"], row["epoch"], row["beta_kl"]) for row in rows] == [
        (run, split, 1, beta) for run, beta in zip(RUNS, (0.0, 10.0), strict=True) for split in ("train", "test")
    ]
    assert "width" not in rows[0]  # both have the same
    for row in rows:
        (metrics,) = asked(
            ibstore,
            "query",
            lab,
            "SELECT loss, accuracy, noisy_loss, kl_drop1 + kl_drop2 + kl_drop3 AS kl FROM epochs "
            f"WHERE run = '{row['run']}' AND split = '{row['split']}' AND epoch = 1",
        )
        assert {name: row[name] for name in metrics} == pytest.approx(metrics)
        assert row["error"] == pytest.approx(1 - float(str(metrics["accuracy"])))
        assert row["loss_and_kl"] == pytest.approx(float(str(metrics["noisy_loss"])) + float(str(metrics["kl"])))
    assert {row["epoch"] for row in asked(ibstore, "measure", lab, "outcomes", "--epoch", "0")} == {0}


def test_outcomes_that_differ_in_no_number_cannot_be_drawn(ibstore: Command, lab: str, tmp_path: Path) -> None:
    done = ibstore("plot", lab, "outcomes", "-o", tmp_path / "a.png", "--run", RUNS[0])
    assert done.code == 2
    assert "the runs differ in no number to draw against; sweep one" in done.err


def test_the_same_numbers_stand_in_the_table_of_epochs(ibstore: Command, lab: str) -> None:
    sql = "SELECT kl_drop3 FROM epochs WHERE split = 'test' AND epoch = 1 ORDER BY run"
    found = [row["kl_drop3"] for row in asked(ibstore, "query", lab, sql)]
    rows = asked(ibstore, "measure", lab, "transmitted", "--epoch", "1", "--unit", "nats")
    assert found == pytest.approx([r["mean_kl"] for r in rows if (r["split"], r["layer"]) == ("test", "drop3")])


def test_analyze_shows_the_divergence_beside_draws_of_z(ibstore: Command, lab: str) -> None:
    waist = ("--waist", "logs: *=log | width(1.0)")
    shown = ibstore("analyze", lab, *waist, "--layer", "drop3.z[0]", "--quiet")
    assert "mean_kl" in shown.out
    assert "mean_kl" not in ibstore("analyze", lab, *waist, "--layer", "out", "--quiet").out


def test_a_classifier_reads_labels_in_layers(ibstore: Command, lab: str) -> None:
    rows = asked(ibstore, "probe", lab, "--layer", "drop3.f", "--epoch", "1", "--hidden", "8")
    assert [(row["run"], row["split"], row["n_fit"], row["n"]) for row in rows] == [
        (run, "test", 30, 30) for run in RUNS
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "nuisance"), "have no target 'nuisance'; they have y"),
        (("--layer", "nothing"), "nothing"),
        (("--hidden", "-3"), "hidden is -3"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(
    ibstore: Command, lab: str, arguments: tuple[str, ...], message: str
) -> None:
    done = ibstore("probe", lab, *arguments)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("kind", ["transmitted", "maps", "outcomes"])
def test_pictures_are_drawn(ibstore: Command, lab: str, kind: str, tmp_path: Path) -> None:
    done = ibstore("plot", lab, kind, "-o", tmp_path / "a.png", "--epoch", "1")
    assert (done.code, done.out) == (0, "")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_total_correlation_is_drawn_against_beta(ibstore: Command, lab: str, tmp_path: Path) -> None:
    chosen = ("--layer", "drop3.f", "--waist", "logs: *=log | quantile(bins=2)", "--epoch", "1")
    rows = asked(ibstore, "measure", lab, "correlation", *chosen)
    assert {(row["run"], row["beta_kl"], row["gamma_tc"]) for row in rows} == {
        (RUNS[0], 0.0, 0.0),
        (RUNS[1], 10.0, 0.0),
    }
    done = ibstore("plot", lab, "correlation", *chosen, "-o", tmp_path / "a.png")
    assert (done.code, done.out) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("measure", "transmitted", "--waist", "thesis-6.2"), "--waist means nothing to transmitted; leave it out"),
        (("measure", "outcomes", "--layer", "out"), "--layer means nothing to outcomes"),
        (("measure", "outcomes", "--unit", "nats"), "--unit means nothing to outcomes"),
        (("measure", "maps(count=2)", "--channels", "mean"), "--channels means nothing to maps"),
        (("plot", "transmitted", "-o", "a.png", "--beta", "2"), "--beta means nothing to transmitted"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    ibstore: Command, lab: str, arguments: tuple[str, ...], message: str
) -> None:
    command, what, *rest = arguments
    done = ibstore(command, lab, what, *rest)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--width", "0.5", "--set", "width=1"), "an option of the recipe is said twice"),
        (("--width", "0"), "width is 0.0; give a factor above 0"),
        (("--set", "beta_kl=-1"), "beta_kl is -1.0; give a number from 0"),
        (("--set", "dropout=some"), "dropout is 'some'; give one of information"),
        (
            ("--set", "beta=1"),
            "has no option 'beta'; it has dropout=information, activation=relu, width=1.0, beta_kl=1.0",
        ),
        (("--replicas", "2"), "draws random numbers in training"),
    ],
)
def test_what_cannot_be_trained_is_a_sentence(
    ibstore: Command, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    done = ibstore(
        "capture", "info-dropout-mnist", "--store", tmp_path / "a.zarr", "--limit", "20", "--epochs", "1", *options
    )
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("beta_kl=0,-1", "beta_kl is -1.0"),
        ("dropout=information,some", "dropout is 'some'"),
        ("beta_kl=0,0.0", "two of the trainings that are swept are the same; give each value once"),
    ],
)
def test_a_sweep_is_refused_as_a_whole(ibstore: Command, tmp_path: Path, sweep: str, message: str) -> None:
    store = tmp_path / "a.zarr"
    done = ibstore(
        "capture", "info-dropout-mnist", "--store", store, "--limit", "20", "--epochs", "0", "--sweep", sweep
    )
    assert done.code == 2
    assert message in done.err
    assert not store.exists()


def test_a_sweep_is_a_run_a_value(ibstore: Command, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    short = ("--epochs", 0, "--limit", 20, "--width", 0.1, "--probe", 5)
    done = ibstore("capture", "info-dropout-mnist", "--store", store, *short, "--sweep", "beta_kl=0,10")
    assert done.code == 0
    assert Store.open(store).run_names() == RUNS
