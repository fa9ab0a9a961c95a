"""What bins clip, and how many are used, against numpy; never is a value wrapped into another bin."""

import numpy as np
import pytest

from ibstore.analyze import Study
from ibstore.errors import ValuesError
from tests.analyze.stores import make_store

N = 101
VALUES = np.random.default_rng(0).normal(size=(2, N, 3, 2)).astype(np.float32)
VALUES[:, :, 2] = 7.0
VALUES[0, 0, 0, 0], VALUES[0, 1, 0, 0] = np.inf, -np.inf


@pytest.fixture
def study(tmp_path):
    return Study(make_store(tmp_path / "lab.zarr", np.arange(N)[:, None], layers={"t": VALUES}, together=True))


def ranges(study, recipe, **about):
    return study.ask(f"w: t={recipe}", **about).measure("ranges").rows(named=True)


def test_values_beyond_fixed_ends_are_counted(study):
    for row in ranges(study, "identity | uniform(bins=4, lo=-1, hi=1)"):
        values = VALUES[row["epoch"]]
        below, above = int((values < -1).sum()), int((values > 1).sum())
        assert (row["below"], row["above"]) == (below, above)
        assert row["clipped"] == (below + above) / values.size
        assert (row["n"], row["units"], row["edges"]) == (N, 6, "fixed")
        assert row["constant"] == 2
        assert row["bins_used"] == pytest.approx((4 * 4 + 2) / 6)


@pytest.mark.parametrize("scope", ["unit", "channel", "layer"])
@pytest.mark.parametrize("per", ["epoch", "run"])
def test_values_beyond_fitted_quantiles_are_counted(study, scope, per):
    finite = np.where(np.isfinite(VALUES), VALUES, np.sign(VALUES) * 1e30).astype(np.float64)
    for row in ranges(study, f"identity | quantile(bins=5, lo=0.1, hi=0.8, scope={scope}, per={per})"):
        own = finite if per == "run" else finite[[row["epoch"]]]
        axes = {"unit": (0, 1), "channel": (0, 1, 3), "layer": (0, 1, 2, 3)}[scope]
        low, high = np.quantile(own, [0.1, 0.8], axis=axes, keepdims=True)
        values = finite[[row["epoch"]]]
        assert (row["below"], row["above"]) == (int((values < low).sum()), int((values > high).sum()))
        assert row["edges"] == per


def test_what_is_reduced_is_what_is_looked_at(study):
    for row in ranges(study, "channelmax | uniform(bins=2, lo=0, hi=1)"):
        values = VALUES[row["epoch"]].max(axis=2)
        assert (row["below"], row["above"]) == (int((values < 0).sum()), int((values > 1).sum()))
    [row, _] = ranges(study, "identity | uniform(bins=2, lo=0, hi=1)", channels="mean", epochs=[1])[:2]
    assert (row["channel"], row["units"]) == ("0", 2)


def test_codes_and_open_bins_have_no_range(study):
    for recipe, told in (("exact", None), ("equalmass(bins=4)", 0), ("edges(0, 1)", 0), ("threshold(0)", 0)):
        for row in ranges(study, f"identity | {recipe}"):
            assert row["below"] == row["above"] == told
    first = ranges(study, "identity | exact")[0]
    assert first["bins_used"] == np.mean([len(np.unique(VALUES[0, :, c, p])) for c in range(3) for p in range(2)])


def test_large_and_small_values_lie_in_the_end_bins(tmp_path):
    huge = np.array([-3e38, -1e9, -1.0, -0.0, 0.0, 0.5, 1.0, 1e9, 3e38, np.inf, -np.inf], np.float32)
    path = make_store(tmp_path / "lab.zarr", np.arange(11)[:, None], layers={"t": huge[None, :, None]})
    study = Study(path)
    study.analyze("w: t=identity | uniform(bins=4, lo=-1, hi=1)", keep_keys="always")
    keys = study.query("SELECT sample, key FROM patterns WHERE layer = 't' ORDER BY sample")["key"].to_list()
    assert keys[0] == keys[1] == keys[2] == keys[10]
    assert keys[3] == keys[4]
    assert keys[6] == keys[7] == keys[8] == keys[9]


def test_nan_is_refused_and_named(tmp_path):
    broken = VALUES.copy()
    broken[1, 5, 0, 0] = np.nan
    study = Study(make_store(tmp_path / "lab.zarr", np.arange(N)[:, None], layers={"t": broken}))
    with pytest.raises(ValuesError, match="run 'run0', layer 't', epoch 1 has NaN"):
        ranges(study, "identity | uniform(bins=2, lo=0, hi=1)")
    assert len(ranges(study, "identity | exact")) == 2
    with pytest.raises(ValuesError, match="labels takes integers"):
        ranges(study, "identity | labels", epochs=[0])
