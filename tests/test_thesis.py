"""What the MNIST thesis reports comes back from one capture of all 60,000 digits, trained here."""

import math
from pathlib import Path

import polars as pl
import pytest

import ibstore

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
EPOCHS = 2

pytestmark = [
    pytest.mark.skipif(
        not (DATA / "MNIST").exists(), reason="needs the full MNIST in ../shared/data beside the checkout"
    ),
    pytest.mark.xdist_group("thesis"),  # one process trains for all of them
]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> ibstore.Study:
    from ibstore.capture.recipes import recipe
    from ibstore.capture.train import TrainSettings, train

    store = tmp_path_factory.mktemp("thesis") / "lab.zarr"
    settings = TrainSettings.of(recipe("mnist-cnn"), dataset="mnist", data_dir=DATA, epochs=EPOCHS)
    train("mnist-cnn", store, settings=settings)
    return ibstore.open(store)


@pytest.fixture(scope="module")
def narrowed(study: ibstore.Study) -> pl.DataFrame:
    return study.analyze(["thesis-6.2"], unit="nats")


def test_entropies_of_input_and_labels(narrowed: pl.DataFrame) -> None:
    assert narrowed["n"].unique().to_list() == [60_000]
    assert narrowed["h_x"].unique().item() == pytest.approx(9.5308, abs=5e-5)
    assert narrowed["h_y"].unique().item() == pytest.approx(2.3012, abs=5e-5)


def test_without_narrowing_nothing_is_learnt(study: ibstore.Study) -> None:
    """§6.1: H(conv1) stands at ln N, and the row says so."""
    plane = study.analyze(["thesis-6.1"], unit="nats", layers=["conv1"], epochs=[0, EPOCHS])
    assert (plane["h_t"] - math.log(60_000)).abs().max() == pytest.approx(0, abs=1e-3)
    assert plane["saturated"].to_list() == [True, True]


def test_untrained_output_has_one_pattern(narrowed: pl.DataFrame) -> None:
    row = narrowed.row(by_predicate=(pl.col("layer") == "out") & (pl.col("epoch") == 0), named=True)
    assert (row["distinct_t"], row["h_t"], row["i_xt"], row["i_ty"]) == (1, 0.0, 0.0, 0.0)


def test_output_forgets_the_input_and_learns_the_label(narrowed: pl.DataFrame) -> None:
    """§6.2, the simplest layer: from training epoch 1 on I(X;T) falls, I(T;Y) rises, both below ln 10 and a bit."""
    out = narrowed.filter((pl.col("layer") == "out") & (pl.col("epoch") >= 1))
    assert (out["i_xt"].diff().drop_nulls() < 0).all()
    assert (out["i_ty"].diff().drop_nulls() > 0).all()
    assert not out["saturated"].any()


def test_joint_counts_add_up_to_the_digits(study: ibstore.Study, narrowed: pl.DataFrame) -> None:
    """The kept keys give the printed entropy again, in SQL alone."""
    answer = study.query(
        f"""
        WITH seen AS (
            SELECT t, sum(n) / 60000 AS p FROM joint_counts
            WHERE layer = 'out' AND epoch = {EPOCHS} AND waist = 'thesis-6.2' GROUP BY t
        )
        SELECT -sum(p * ln(p)) AS h, sum(p) AS whole FROM seen
        """
    )
    row = narrowed.row(by_predicate=(pl.col("layer") == "out") & (pl.col("epoch") == EPOCHS), named=True)
    assert answer["whole"].item() == pytest.approx(1)
    assert answer["h"].item() == pytest.approx(row["h_t"], abs=1e-9)
