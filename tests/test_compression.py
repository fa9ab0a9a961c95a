"""A tanh network compresses by fixed bins, a ReLU network does not; what of it is the measure's (Saxe et al. 2018)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import ibstore
from benchmarks.compression import BINS, LAYERS, MARKS, PATTERNS, RANGE, train
from tests.conftest import Command
from tests.test_docs import blocks, commands

EPOCHS, SEED = 300, 4
TAKEN = {0, EPOCHS, *MARKS[: MARKS.index(EPOCHS) : 3]}
"""Some of the marks tell it: most of the time goes into noise, mark by mark."""

LAST = LAYERS[-1]
NOISES = ("kde(variance=0.01)", "kde(variance=0.1)")
PAGE = "docs/compression.md"

pytestmark = [
    pytest.mark.skipif(
        not PATTERNS.exists(), reason="needs the 4,096 patterns in ../shared/data/szt/var_u.mat beside the checkout"
    ),
    pytest.mark.xdist_group("compression"),  # one process trains for all of them
]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def study(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> ibstore.Study:
    store = tmp_path_factory.mktemp("compression") / "lab.zarr"
    for kind in ("tanh", "relu"):
        train(kind, store, EPOCHS, SEED, TAKEN)
    return ibstore.open(store)


@pytest.fixture(scope="module")
def plane(study: ibstore.Study) -> pl.DataFrame:
    """The last hidden layer by bins over the run's range and by noise."""
    return study.ask(RANGE, layers=LAST).plane(["plugin", *NOISES])


def course(table: pl.DataFrame, kind: str, estimator: str = "plugin", column: str = "i_xt") -> np.ndarray:
    """A column, epoch after epoch."""
    found = table.filter(run=f"{kind}-{SEED}", estimator=estimator).sort("epoch")
    assert found["epoch"].to_list()[:: len(found) - 1] == [0, EPOCHS]
    return found[column].to_numpy()


def by(study: ibstore.Study, kind: str, bins: str, column: str = "i_xt") -> np.ndarray:
    """The same of other bins."""
    return course(study.analyze(f"own: {LAST}=identity | {bins}"), kind, column=column)


def fall(values: np.ndarray) -> float:
    """From the highest value to the last."""
    return values.max() - values[-1]


def test_both_networks_learn(study: ibstore.Study, plane: pl.DataFrame) -> None:
    last = study.query(f"SELECT accuracy FROM epochs WHERE epoch = {EPOCHS}")
    assert last["accuracy"].min() > 0.9
    for kind in ("tanh", "relu"):
        i_ty = course(plane, kind, column="i_ty")
        assert i_ty[0] < 0.3
        assert i_ty[-1] > 0.75


def test_every_input_is_there_once_and_the_network_is_deterministic(plane: pl.DataFrame) -> None:
    bins = plane.filter(estimator="plugin")
    assert bins["n"].unique().to_list() == bins["distinct_x"].unique().to_list() == [4096]
    assert bins["h_y"].unique().item() == pytest.approx(0.9992, abs=5e-5)  # as published
    np.testing.assert_allclose(bins["i_xt"], bins["h_t"], atol=1e-12)


def test_tanh_compresses_by_fixed_bins_while_it_learns(plane: pl.DataFrame) -> None:
    i_xt, i_ty = course(plane, "tanh"), course(plane, "tanh", column="i_ty")
    assert fall(i_xt) > 2
    assert i_xt[0] - i_xt[-1] > 0.7  # below where it began
    assert i_ty[-1] > i_ty[i_xt.argmax()] + 0.2


def test_bins_over_the_range_are_those_between_the_ends_of_tanh(study: ibstore.Study, plane: pl.DataFrame) -> None:
    fixed = by(study, "tanh", "uniform(bins=30, lo=-1, hi=1)")
    np.testing.assert_allclose(fixed, course(plane, "tanh"), atol=0.2)
    assert fall(fixed) > 2


def test_relu_does_not_compress_by_fixed_bins(plane: pl.DataFrame) -> None:
    i_xt = course(plane, "relu")
    assert i_xt[0] < 0.1
    assert i_xt[-1] > 2.5
    assert fall(i_xt) < 0.3


@pytest.mark.parametrize("noise", NOISES)
def test_by_noise_relu_rises_to_the_end_from_below_tanh(plane: pl.DataFrame, noise: str) -> None:
    tanh, relu = course(plane, "tanh", noise), course(plane, "relu", noise)
    assert relu[0] + 0.3 < tanh[0]
    assert relu[-1] > tanh[-1] + (0.3 if noise == NOISES[1] else 0)
    assert relu[-1] - relu[0] > tanh[-1] - tanh[0] + 0.7
    assert fall(relu) < 0.3


def test_how_far_tanh_falls_hangs_on_the_noise(plane: pl.DataFrame) -> None:
    bins, little, much = (fall(course(plane, "tanh", estimator)) for estimator in ("plugin", *NOISES))
    assert bins > little + 1
    assert little > much + 0.3
    assert much < 0.3


def test_more_noise_leaves_less_information(plane: pl.DataFrame) -> None:
    for kind in ("tanh", "relu"):
        little, much = (course(plane, kind, noise) for noise in NOISES)
        assert (much < little).all()
        assert (course(plane, kind, NOISES[0], "i_xt_low") <= little).all()


def test_exactly_counted_tanh_forgets_nothing(study: ibstore.Study) -> None:
    exact = by(study, "tanh", "exact")
    np.testing.assert_allclose(exact, 12, atol=0.01)
    assert by(study, "tanh", "exact", "saturated").all()


def test_exactly_counted_relu_forgets(study: ibstore.Study) -> None:
    """Where all units are 0 no bins help: it falls, which fixed bins do not show."""
    assert fall(by(study, "relu", "exact")) > 2


def test_bins_that_clip_make_a_fall_of_their_own(study: ibstore.Study) -> None:
    clipping = "uniform(bins=30, lo=0, hi=1)"
    assert fall(by(study, "relu", clipping)) > 1.5
    ranges = study.ask(f"own: {LAST}=identity | {clipping}", runs=f"relu-{SEED}").measure("ranges").sort("epoch")
    assert ranges["clipped"][0] == 0
    assert ranges["clipped"][-1] > 0.2


def test_the_saturation_is_in_the_values(study: ibstore.Study) -> None:
    """More and more of tanh lies in the two end bins; the spread of ReLU grows."""
    values = study.query(
        f"""SELECT epoch, avg((abs(value) > 14 / 15)::INT) FILTER (run LIKE 'tanh-%') AS ends,
                   stddev(value) FILTER (run LIKE 'relu-%') AS spread
            FROM activations WHERE layer = '{LAST}' AND epoch IN (0, {EPOCHS}) GROUP BY epoch ORDER BY epoch"""
    )
    assert values["ends"][0] < 0.01
    assert values["ends"][1] > 0.25
    assert values["spread"][1] > 20 * values["spread"][0]


def test_the_page_can_be_redone(
    one_thread: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ibstore: Command
) -> None:
    """Its code runs as it stands, its trainings cut short."""
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(PAGE, "python")
    assert BINS in code
    assert "epochs=1200" in code
    exec(compile(code.replace("epochs=1200", "epochs=20"), PAGE, "exec"), {})
    asked = commands(PAGE)
    assert len(asked) >= 5
    for command in asked:
        done = ibstore(*command[1:])
        assert done.code == 0, (command, done)
    assert (tmp_path / "curves.png").stat().st_size > 10_000
