"""Estimators that look at values: what they are shown, what stands in the table, and that nothing is computed twice."""

import math

import numpy as np
import polars as pl
import pytest

from ibstore.analyze import Study, plane
from ibstore.analyze.estimate import density
from ibstore.analyze.estimate.density import DENSITIES, Density, density_name
from ibstore.analyze.estimate.kde import bounds, variance_from_labels
from ibstore.analyze.plan import LEAST
from ibstore.errors import IbstoreError, UnknownNameError, UsageError, ValuesError

from .stores import make_run, make_store

N = 70
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(N, 3)).astype(np.float32)
Y = np.arange(N) % 3
CONV = RANDOM.normal(size=(2, N, 2, 4, 4)).astype(np.float32)
OUT = (RANDOM.normal(size=(2, N, 5)) + Y[:, None]).astype(np.float32)
WAIST = "w: x=identity | exact; conv=maxpool(2, 2) | quantile(bins=2); out=identity | threshold(0)"


@pytest.fixture(params=[False, True], ids=["apart", "together"])
def store(request, tmp_path):
    return make_store(tmp_path / "lab.zarr", X, Y, layers={"conv": CONV, "out": OUT}, together=request.param)


@pytest.fixture
def shown(monkeypatch):
    """What a declared estimator is shown."""
    seen = []

    def spy(samples: int = 0) -> Density:
        def row(variables):
            seen.append(variables)
            t = variables.t
            return {"i_xt_raw": float(t.sum()) % 1, "i_ty_raw": 9.0, "h_t": float(len(t))}

        return Density(row, samples, needs_x=True)

    monkeypatch.setitem(DENSITIES, "spy", spy)
    return seen


def pooled(epoch):
    return CONV[epoch].reshape(N, 2, 2, 2, 2, 2).max(axis=(3, 5))


def test_it_is_shown_reduced_values_the_input_and_labels(store, shown):
    found = Study(store).analyze(WAIST, estimators="spy")
    assert len(shown) == 4
    for seen, epoch, values in zip(shown, (0, 1, 0, 1), [pooled(0), pooled(1), OUT[0], OUT[1]], strict=True):
        np.testing.assert_array_equal(seen.t, values.reshape(N, -1))
        np.testing.assert_array_equal(seen.x, X)
        np.testing.assert_array_equal(seen.y, Y)
        assert seen.t.dtype == np.float32
        del epoch
    assert found["i_ty"].to_list() == [found["h_y"][0]] * 4  # within its bound
    assert found["i_ty_raw"].to_list() == [9.0] * 4
    assert found["h_t"].to_list() == [float(N)] * 4
    assert found["edges"].null_count() == 4


@pytest.mark.parametrize("samples", [1, 20, 69])
def test_it_is_shown_as_many_samples_as_it_looks_at_the_same_in_every_layer(store, shown, samples):
    found = Study(store).analyze(WAIST, estimators=[f"spy({samples})", "spy"])
    few = [seen for seen in shown if len(seen.t) == samples]
    chosen = [int(np.flatnonzero((row == X).all(axis=1))[0]) for row in few[0].x]
    assert chosen == sorted(chosen)
    assert len(set(chosen)) == samples
    outs = [seen for seen in few if seen.t.shape[1] == 5]
    np.testing.assert_array_equal(outs[1].t, OUT[1, chosen])
    for seen in few:
        np.testing.assert_array_equal(seen.x, X[chosen])
        np.testing.assert_array_equal(seen.y, Y[chosen])
    assert set(found.filter(pl.col("estimator") != "spy")["n"]) == {samples}


def test_channels_are_shown_one_by_one(store, shown):
    found = Study(store).analyze(WAIST, estimators="spy", layers="conv", channels="mean")
    shapes = [seen.t.shape for seen in shown]
    assert shapes == [(N, 4)] * 4
    expected = [pooled(epoch)[:, channel].reshape(N, -1) for epoch in (0, 1) for channel in (0, 1)]
    for values in expected:
        assert any(np.array_equal(seen.t, values) for seen in shown)
    assert found["channel"].to_list() == ["0", "0", "1", "1", "mean", "mean"]


def test_what_has_no_room_is_mapped_from_a_file(store, shown, monkeypatch):
    whole = Study(store).analyze(WAIST, estimators="spy")
    monkeypatch.setattr("ibstore.analyze.plan.Budget.values", property(lambda _: 500))
    study = Study(store, store.parent / "other")
    assert study.analyze(WAIST, estimators="spy").equals(whole)
    assert isinstance(shown[-1].t, np.memmap)
    for seen, again in zip(shown[:4], shown[4:], strict=True):
        np.testing.assert_array_equal(seen.t, again.t)


def test_waists_that_reduce_alike_share_estimates_and_asking_again_costs_nothing(store, shown):
    study = Study(store)
    first = study.analyze(WAIST, estimators="spy")
    other = WAIST.replace("w:", "v:").replace("bins=2", "bins=9")
    again = study.analyze([WAIST, other], estimators="spy")
    assert len(shown) == 4
    assert again.filter(waist="w").equals(first)
    assert again.filter(waist="v").drop("waist").equals(first.drop("waist"))
    study.analyze(WAIST.replace("2, 2", "4, 4"), estimators="spy")
    assert len(shown) == 6  # `out` is the same


def test_another_input_recipe_is_another_estimate_of_what_looks_at_it(store, shown):
    study = Study(store)
    study.analyze(WAIST, estimators="spy", layers="out")
    study.analyze("v: x=channelmean | exact; out=identity | exact", estimators="spy")
    assert len(shown) == 4
    np.testing.assert_array_equal(shown[-1].x, X)


def test_the_kde_s_rows_are_its_bounds(store):
    found = Study(store).analyze(WAIST, estimators=["kde(variance=0.1)", "kde"], unit="nats")
    for row in found.iter_rows(named=True):
        values = pooled(row["epoch"]).reshape(N, -1) if row["layer"] == "conv" else OUT[row["epoch"]]
        own = bounds(values, 0.1 if "0.1" in row["estimator"] else variance_from_labels(Y), Y)
        nats = math.log(2)
        assert (row["i_xt_low"], row["i_xt_high"]) == pytest.approx([nats * bound for bound in own.i_xt])
        assert row["i_xt"] == row["i_xt_raw"] == row["i_xt_high"]
        assert row["variance"] == own.variance
        assert row["h_t"] == pytest.approx(nats * own.h_t.upper)
        assert row["i_ty_raw"] == pytest.approx(nats * own.i_ty.upper)
        assert (row["i_ty_low"], row["i_ty_high"]) == pytest.approx(sorted(nats * each for each in own.i_ty))
        assert row["i_ty_raw"] == pytest.approx(row["h_t"] + row["h_y"] - row["h_ty"])
        assert row["ceiling"] == pytest.approx(nats * math.log2(N))
        assert row["distinct_t"] is row["singletons_t"] is row["coverage_t"] is row["h_xt"] is None


@pytest.mark.parametrize("estimator", ["kde", "ksg", "ksg(variant=2)", "renyi", "renyi(alpha=2)", "edge"])
def test_every_estimator_tells_a_layer_that_knows_the_label_from_one_that_does_not(estimator, tmp_path):
    count = 300
    y = np.arange(count) % 3
    knows = (RANDOM.normal(size=(1, count, 3)) * 0.05 + np.eye(3)[y]).astype(np.float32)
    layers = {"no": RANDOM.normal(size=(1, count, 3)).astype(np.float32), "knows": knows}
    x = RANDOM.normal(size=(count, 3)).astype(np.float32)
    table = Study(make_store(tmp_path / "lab.zarr", x, y, layers=layers)).analyze(
        "w: *=identity | exact", estimators=estimator
    )
    i_ty = dict(table.select("layer", "i_ty").iter_rows())
    assert i_ty["knows"] > 1.2
    assert i_ty["knows"] > i_ty["no"] + 0.3
    assert (table["i_xt"] >= 0).all()


def test_without_labels_nothing_is_told_of_them(tmp_path):
    study = Study(make_store(tmp_path / "lab.zarr", X, layers={"out": OUT}))
    found = study.analyze("w: *=identity | exact", estimators=["kde(variance=0.2)", "ksg", "renyi", "edge"])
    assert len(found) == 8
    for name in ("h_y", "h_ty", "i_ty", "i_ty_raw", "ib"):
        assert found[name].null_count() == 8
    with pytest.raises(UsageError, match=r"there are none; give it: kde\(variance=0.1\)"):
        study.analyze("w: *=identity | exact", estimators="kde")


def test_an_epoch_with_nan_is_told_and_costs_no_other(tmp_path):
    broken = OUT.copy()
    broken[1, 3, 2] = np.nan
    study = Study(make_store(tmp_path / "lab.zarr", X, Y, layers={"out": broken}, together=True))
    with pytest.raises(ValuesError, match="run 'run0', layer 'out', epoch 1 has NaN"):
        study.analyze("w: *=identity | exact", estimators="kde")
    assert study.analyze("w: *=identity | exact", estimators="kde", epochs=[0])["i_xt"][0] > 0


def test_values_that_an_estimator_refuses_are_named(tmp_path):
    endless = OUT.copy()
    endless[1, 3, 2] = np.inf
    study = Study(make_store(tmp_path / "lab.zarr", X, Y, layers={"out": endless}, together=True))
    for name in ("kde", "ksg"):
        with pytest.raises(
            ValuesError, match=f"layer 'out', epoch 1 has NaN or an infinity, which {name} cannot look at"
        ):
            study.analyze("w: *=identity | exact", estimators=name)
        assert study.analyze("w: *=identity | exact", estimators=name, epochs=[0])["n"].to_list() == [N]
    with pytest.raises(
        UsageError, match=r"ksg\(k=70\) of run 'run0', layer 'out', epoch 0: k=70 neighbours of 70 samples"
    ):
        study.analyze("w: *=identity | exact", estimators="ksg(k=70)", epochs=[0])


def test_labels_that_all_differ_leave_the_rest(tmp_path):
    study = Study(make_store(tmp_path / "lab.zarr", X, np.arange(N), layers={"out": OUT}))
    found = study.analyze("w: *=identity | exact", estimators="ksg")
    assert found["i_ty"].null_count() == 2
    assert found["i_xt"].null_count() == 0


def test_only_epochs_that_are_asked_for_are_looked_at(store, shown):
    study = Study(store)
    study.analyze(WAIST, estimators="spy", epochs=[1])
    assert len(shown) == 2
    assert study.query("SELECT DISTINCT epoch FROM information_plane").rows() == [(1,)]
    study.analyze(WAIST, estimators="spy")
    assert len(shown) == 4


def test_an_interruption_keeps_what_was_made(store, shown):
    def interrupted(event):
        if event.stage == "estimate" and event.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Study(store).analyze(WAIST, estimators="spy", emit=interrupted)
    made = len(shown)
    Study(store).analyze(WAIST, estimators="spy")
    assert len(shown) <= made + 2


@pytest.mark.parametrize("estimator", ["ksg(samples=0)", "renyi(samples=0)", "edge"])
def test_what_an_estimator_would_hold_is_reckoned_before(estimator, monkeypatch, store):
    monkeypatch.setattr(density, "COPIES", dict.fromkeys(density.COPIES, 1 << 40))
    with pytest.raises(
        IbstoreError, match=r"70 samples of 8 units take about [\d,]+ MiB beside the values.*give more --memory"
    ):
        Study(store).analyze(WAIST, estimators=estimator)


def test_splits_are_looked_at_with_their_own_samples(tmp_path, shown):
    data = {"train": (X, Y), "test": (X[:20] + 1, Y[:20])}
    layers = {"train": {"out": OUT}, "test": {"out": OUT[:, :20]}}
    found = Study(make_run(tmp_path / "lab.zarr", data, layers)).analyze("w: *=identity | exact", estimators="spy")
    assert found.select("split", "n").unique(maintain_order=True).rows() == [("train", N), ("test", 20)]
    np.testing.assert_array_equal(shown[-1].x, X[:20] + 1)


def test_queries_and_the_cache_know_them(store):
    study = Study(store)
    study.analyze(WAIST, estimators="kde(variance=0.5)")
    rows = study.query("SELECT estimator, count(*) AS n FROM information_plane GROUP BY ALL").rows()
    assert rows == [("kde(variance=0.5)", 4)]
    assert study.query("SELECT count(*) FROM entropies WHERE variable = 't' AND entropy IS NOT NULL").item() == 4
    assert set(study.kept().drop_nulls("estimator")["estimator"]) == {"kde(variance=0.5)"}
    long = study.analyze(WAIST, estimators="kde(variance=0.5)", long=True)
    assert long.columns == list(plane.LONG_COLUMNS)


def test_explain_says_what_else_is_read(store):
    told = []
    study = Study(store)
    plan = study.explain(WAIST, estimators=["plugin", "kde", "ksg"], emit=told.append)
    assert len(plan) == len(Study(store).explain(WAIST))
    assert [event.detail.partition("for ")[2] for event in told] == ["8 estimates: kde, ksg"] or "kde, ksg" in told[
        0
    ].detail
    study.analyze(WAIST, estimators="kde")
    told.clear()
    study.explain(WAIST, estimators="kde", emit=told.append)
    assert told == []


def test_the_least_memory_is_enough(store):
    whole = Study(store).analyze(WAIST, estimators="kde(variance=0.1)")
    assert (
        Study(store, store.parent / "small")
        .analyze(WAIST, estimators="kde(variance=0.1)", memory=LEAST, threads=1)
        .equals(whole)
    )


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("kde", "kde"),
        ("KDE(0.1)", "kde(variance=0.1)"),
        ("kde(variance=1)", "kde(variance=1.0)"),
        ("kde(labels, samples=10_000)", "kde"),
        ("kde(samples=500)", "kde(samples=500)"),
        ("ksg(k=5, variant=2)", "ksg(k=5, variant=2)"),
        ("renyi(alpha=2)", "renyi(alpha=2.0)"),
        (" edge ( seed = 1 ) ", "edge(seed=1)"),
    ],
)
def test_names_are_short_and_one(text, name):
    assert density_name(text) == name
    assert density_name(name) == name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kde(variance=0)", "variance must be a finite number above 0, not 0.0"),
        ("kde(variance=loud)", "variance is a number or the word labels, not loud"),
        ("kde(samples=-1)", "samples is how many to look at"),
        ("kde(noise=1)", "unexpected keyword argument 'noise'"),
        ("ksg(k=0)", "k is at least 1"),
        ("ksg(variant=3)", "variant 1 or 2"),
        ("ksg(k=1.5)", "k must be of type int"),
        ("renyi(alpha=-1)", "alpha must be a finite number above 0"),
        ("edge(seed=-1)", "seed is at least 0"),
        ("kde(", "cannot be read"),
    ],
)
def test_bad_numbers_are_refused(text, said, store):
    with pytest.raises(UsageError) as refused:
        Study(store).analyze(WAIST, estimators=text)
    assert str(refused.value).startswith(f"estimator {text!r}: ")
    assert said in str(refused.value)


def test_unknown_estimators_are_told_all_there_are(store):
    with pytest.raises(UnknownNameError, match=r"unknown estimator 'kdf'; there are plugin, .*kde, ksg, renyi, edge"):
        Study(store).analyze(WAIST, estimators="kdf")


def test_chosen_samples_are_nested():
    few, many = (set(Density(lambda _: {}, samples).chosen(1000).tolist()) for samples in (10, 100))
    assert few < many
    assert len(few) == 10
    assert density.Density(lambda _: {}).chosen(5).tolist() == [0, 1, 2, 3, 4]


def test_nothing_is_left_of_files_that_were_mapped(store, shown, monkeypatch, tmp_path):
    monkeypatch.setattr("ibstore.analyze.plan.Budget.values", property(lambda _: 500))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(tmp_path.iterdir())
    Study(store, store.parent / "other").analyze(WAIST, estimators="spy")
    assert {path for path in set(tmp_path.iterdir()) - before if path.name.startswith("ibstore-")} == set()
