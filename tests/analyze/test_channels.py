"""Channels as variables of their own: what their rows are, what their mean is, and who else sees them."""

import numpy as np
import polars as pl
import pytest

from ibstore.analyze import Study, plane
from ibstore.errors import UsageError, WaistError

from .stores import make_store, numbered

N, CHANNELS = 80, 3
Y = np.arange(N) % 4
CONV = np.maximum(np.random.default_rng(0).normal(size=(2, N, CHANNELS, 4, 4)), 0).astype(np.float32)
OUT = np.random.default_rng(1).normal(size=(2, N, 5)).astype(np.float32)
WAISTS = [
    "w: x=identity | exact; *=identity | threshold(0.8)",
    "pooled: conv=maxpool(2, 2) | quantile(bins=2)",
    "run: conv=avgpool(2, 4) | quantile(bins=3, scope=channel, per=run)",
    "coded: conv=identity | exact",
]


@pytest.fixture
def study(tmp_path):
    return Study(make_store(tmp_path / "lab.zarr", numbered(N, 2), Y, layers={"conv": CONV, "out": OUT}))


def numbers(table):
    return table.drop("layer", "channel", "dpi_xt", "dpi_ty").sort(pl.all())


@pytest.mark.parametrize("waist", WAISTS)
@pytest.mark.parametrize("estimator", ["plugin", "grassberger"])
def test_a_channel_is_analyzed_as_if_it_were_the_layer(waist, estimator, study, tmp_path):
    found = study.analyze(waist, layers="conv", channels="mean", estimators=estimator)
    assert found["channel"].to_list() == [str(c) for c in range(CHANNELS) for _ in range(2)] + ["mean"] * 2
    for channel in range(CHANNELS):
        alone = make_store(tmp_path / f"{channel}.zarr", numbered(N, 2), Y, layers={"conv": CONV[:, :, [channel]]})
        expected = Study(alone).analyze(waist, layers="conv", estimators=estimator)
        assert numbers(found.filter(channel=str(channel))).equals(numbers(expected))


@pytest.mark.parametrize("waist", WAISTS[:2])
def test_the_mean_is_the_channels_mean(waist, study):
    found = study.analyze(waist, layers="conv", channels="mean", unit="nats")
    means = found.filter(channel="mean")
    for epoch in (0, 1):
        own = found.filter(pl.col("channel") != "mean", epoch=epoch)
        [mean] = means.filter(epoch=epoch).rows(named=True)
        for name in set(plane.IN_UNITS) - {
            "dpi_xt",
            "dpi_ty",
            "i_xt_low",
            "i_xt_high",
            "i_ty_low",
            "i_ty_high",
            "mean_kl",
        }:
            assert mean[name] == pytest.approx(own[name].mean(), rel=1e-14), name
        assert mean["n"] == N
        assert mean["distinct_t"] is mean["singletons_t"] is mean["coverage_t"] is None
        assert mean["saturated"] == own["saturated"].any()


def test_a_layer_of_one_axis_is_one_variable_and_the_processing_inequality_is_about_whole_layers(study):
    found = study.analyze(WAISTS[0], channels="mean")
    assert found.filter(layer="out")["channel"].to_list() == ["all", "all"]
    assert found.filter(layer="conv")["dpi_xt"].null_count() == 2 * (CHANNELS + 1)
    whole = study.analyze(WAISTS[0])
    assert whole["channel"].unique().to_list() == ["all"]
    assert whole["dpi_xt"].null_count() == 0
    assert numbers(found.filter(layer="out")).equals(numbers(whole.filter(layer="out")))


def test_the_long_table_has_the_channels_entropies(study):
    found = study.analyze(WAISTS[0], layers="conv", channels="mean", long=True)
    assert found.columns == list(plane.LONG_COLUMNS)
    h_t = found.filter(variable="t", epoch=1)
    assert h_t.filter(channel="mean")["entropy"][0] == pytest.approx(h_t["entropy"][:CHANNELS].mean(), rel=1e-14)


def test_queries_see_channels_that_were_asked_for_and_patterns_are_those_of_whole_layers(study):
    study.analyze(WAISTS[0])
    count = "SELECT layer, channel, count(*) AS n FROM information_plane GROUP BY ALL ORDER BY ALL"
    assert study.query(count).rows() == [("conv", "all", 2), ("out", "all", 2)]
    patterns = study.query("SELECT * FROM patterns ORDER BY ALL")
    study.analyze(WAISTS[0], channels="mean")
    of_conv = [("conv", channel, 2) for channel in ("0", "1", "2", "all", "mean")]
    assert study.query(count).rows() == [*of_conv, ("out", "all", 2)]
    assert study.query("SELECT * FROM patterns ORDER BY ALL").equals(patterns)
    assert {"0", "1", "2", "all"} <= set(study.kept()["channel"])


def test_asking_again_reads_nothing(study):
    first = study.analyze(WAISTS[1], channels="mean")
    assert study.explain(WAISTS[1], channels="mean").is_empty()
    assert study.analyze(WAISTS[1], channels="mean").equals(first)
    assert not study.explain(WAISTS[1]).is_empty()


def test_one_reading_serves_all_channels(study):
    [_, conv] = study.explain(WAISTS[0], layers="conv", channels="mean").rows(named=True)
    assert (conv["recipes"], conv["passes"]) == (CHANNELS, 1)


def test_what_cannot_be_is_refused(study):
    with pytest.raises(UsageError, match="channels are taken as concat or mean, not 'sum'"):
        study.analyze(channels="sum")
    with pytest.raises(WaistError, match=r"channel 0: maxpool\(2, 2, 2\)"):
        study.analyze("w: conv=maxpool(2, 2, 2) | threshold(0)", channels="mean")
