import math

import numpy as np
import polars as pl
import pytest

import ibstore
from ibstore.analyze import Study, engine, plane
from ibstore.errors import UnknownNameError
from ibstore.events import Event
from ibstore.store.format.layout import Layout

from .stores import make_run, make_store, numbered

WAIST = "w: x=identity | exact; *=identity | quantile(bins=4)"


def analyze(path, *waists, **options):
    return Study(path).analyze(waists or [WAIST], **options)


def relu(seed, *shape):
    return np.maximum(np.random.default_rng(seed).normal(size=shape), 0).astype(np.float32)


def one(table, **chosen):
    [row] = table.filter(**chosen).rows(named=True)
    return row


# ── identities ──────────────────────────────────────────────────────────────────────────────────────────────


def test_x_as_the_sample_s_identity(tmp_path):
    y = np.arange(300) % 7
    layers = {"conv1": relu(0, 3, 300, 4, 5), "out": relu(1, 3, 300, 2)}
    path = make_store(tmp_path / "lab.zarr", numbered(300, 2), y, layers=layers)
    table = analyze(path)
    assert len(table) == 6
    for row in table.iter_rows(named=True):
        assert row["h_x"] == row["h_xt"] == np.log2(300)
        assert row["i_xt"] == row["h_t"] > 0
        assert row["distinct_x"] == 300
    joint = Study(path).query(
        "SELECT epoch, layer, count(*) AS n, count(DISTINCT x) AS x FROM joint_counts GROUP BY ALL"
    )
    assert joint["n"].to_list() == joint["x"].to_list() == [300] * 6  # H(Y,T|X) = 0


def test_information_is_at_most_either_entropy(tmp_path):
    layers = {f"l{units}": relu(units, 1, 200, units) for units in (1, 3, 10)}
    x = np.random.default_rng(0).integers(0, 3, (200, 3)).astype(np.float32)
    path = make_store(tmp_path / "lab.zarr", x, np.random.default_rng(1).integers(0, 4, 200), layers=layers)
    for row in analyze(path, "w: *=identity | quantile(bins=2)", "e: *=identity | exact").iter_rows(named=True):
        assert 0 <= row["i_xt"] <= min(row["h_x"], row["h_t"]) + 1e-12
        assert 0 <= row["i_ty"] <= min(row["h_y"], row["h_t"]) + 1e-12
        assert max(row["h_x"], row["h_t"]) - 1e-12 <= row["h_xt"] <= row["h_x"] + row["h_t"] + 1e-12
        assert max(row["h_y"], row["h_t"]) - 1e-12 <= row["h_ty"] <= row["h_y"] + row["h_t"] + 1e-12


@pytest.mark.parametrize("n", [1, 2, 49, 1000])
def test_a_layer_that_tells_every_sample(n, tmp_path):
    y = np.arange(n) % 3
    path = make_store(tmp_path / "lab.zarr", np.zeros((n, 2)), y, layers={"t": numbered(n, 3)[None]})
    row = one(analyze(path, "w: *=identity | exact"))
    assert row["h_t"] == row["h_ty"] == np.log2(n)
    assert row["i_ty"] == row["h_y"]  # exactly, for T determines Y
    assert (row["distinct_t"], row["singletons_t"], row["saturated"]) == (n, n, True)
    assert (row["h_x"], row["distinct_x"], row["i_xt"]) == (0, 1, 0)


def test_a_constant_layer_tells_nothing(tmp_path):
    path = make_store(
        tmp_path / "lab.zarr", numbered(100, 2), np.arange(100) % 3, layers={"t": np.full((1, 100, 2, 2), 7.5)}
    )
    for waist in ("a: *=identity | quantile(bins=30)", "b: *=identity | exact", "c: *=maxpool(2, 2) | threshold(0)"):
        row = one(analyze(path, waist))
        assert (row["h_t"], row["i_xt"], row["i_ty"], row["ib"]) == (0, 0, 0, 0)
        assert (row["distinct_t"], row["singletons_t"], row["saturated"]) == (1, 0, False)


def test_closed_forms(tmp_path):
    n = 3 * 256
    uniform = np.tile(np.arange(256), 3).astype(np.float32)
    quarter = (np.arange(n) % 4 == 0).astype(np.float32)
    path = make_store(tmp_path / "lab.zarr", uniform[:, None], quarter, layers={"t": quarter[None, :, None]})
    row = one(analyze(path, "w: x=identity | exact; t=identity | threshold(0.5)"))
    assert row["h_x"] == 8
    assert row["h_t"] == row["h_y"] == row["h_ty"] == row["i_ty"] == pytest.approx(2 - 0.75 * math.log2(3), abs=1e-14)
    assert row["i_xt"] == pytest.approx(row["h_t"], abs=1e-14)  # 256 is a multiple of 4


def test_independent_variables_tell_nothing_of_each_other(tmp_path):
    a, b, c = (axis.ravel() for axis in np.meshgrid(range(5), range(7), range(3)))
    path = make_store(tmp_path / "lab.zarr", a[:, None], b, layers={"t": c[None, :, None].astype(np.float32)})
    row = one(analyze(path, "w: *=identity | exact"))
    assert 0 <= row["i_xt"] < 1e-14
    assert 0 <= row["i_ty"] < 1e-14


WAISTS = (
    "a: x=identity | exact; conv1=avgpool(1, 2, 2) | quantile(bins=4); out=softmax | equalmass(bins=3, per=run)",
    "b: *=channelmean | thesis_edges(scope=channel)",
)


@pytest.fixture(scope="module")
def shuffled():
    """Inputs, labels and layers with ties in all of them, and an order to put the samples in."""
    rng = np.random.default_rng(0)
    layers = {"conv1": relu(1, 2, 40, 2, 4, 4), "out": relu(2, 2, 40, 3)}
    return rng.integers(0, 2, (40, 4)).astype(np.float32), rng.integers(0, 4, 40), layers, rng.permutation(40)


@pytest.fixture(scope="module")
def straight(shuffled, tmp_path_factory):
    """The table where samples stand as they come, in one chunk."""
    x, y, layers, _ = shuffled
    return analyze(make_store(tmp_path_factory.mktemp("straight") / "lab.zarr", x, y, layers=layers), *WAISTS)


def test_the_order_of_samples_changes_no_bit(shuffled, straight, tmp_path):
    x, y, layers, order = shuffled
    mixed = {name: values[:, order] for name, values in layers.items()}
    path = make_store(tmp_path / "lab.zarr", x[order], y[order], layers=mixed, sample=order)
    assert analyze(path, *WAISTS).equals(straight)


@pytest.mark.parametrize("rows", [Layout(7, 7), Layout(16, 32), Layout(5, 20)])
def test_chunks_change_no_bit(rows, shuffled, straight, tmp_path):
    x, y, layers, _ = shuffled
    path = make_store(tmp_path / "lab.zarr", x, y, layers=layers, rows=rows)
    assert analyze(path, *WAISTS).equals(straight)


def test_without_labels_what_hangs_on_them_is_null(tmp_path):
    layers = {"t": relu(0, 2, 30, 3)}
    bare = analyze(make_store(tmp_path / "bare.zarr", numbered(30, 2), layers=layers))
    labelled = analyze(make_store(tmp_path / "labelled.zarr", numbered(30, 2), np.arange(30) % 2, layers=layers))
    hanging = ["h_y", "h_ty", "i_ty", "ib", "i_ty_raw", "dpi_ty"]
    assert bare.select(hanging).null_count().row(0) == (2,) * 6
    assert bare.drop(hanging).equals(labelled.drop(hanging))
    assert bare.schema == labelled.schema


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_table_s_columns_and_types(tmp_path):
    path = make_store(tmp_path / "lab.zarr", numbered(30, 2), np.arange(30) % 2, layers={"t": relu(0, 1, 30, 3)})
    assert dict(analyze(path).schema) == {
        **dict.fromkeys(["run", "split", "layer", "channel", "waist", "edges", "estimator", "unit"], pl.String),
        **dict.fromkeys(["epoch", "n", "distinct_x", "distinct_t", "singletons_t"], pl.Int64),
        **dict.fromkeys(["h_x", "h_y", "h_t", "h_xt", "h_ty", "i_xt", "i_ty", "beta", "ib"], pl.Float64),
        **dict.fromkeys(["coverage_t", "ceiling", "i_xt_raw", "i_ty_raw", "dpi_xt", "dpi_ty"], pl.Float64),
        **dict.fromkeys(["i_xt_low", "i_xt_high", "i_ty_low", "i_ty_high", "variance", "mean_kl"], pl.Float64),
        "saturated": pl.Boolean,
    }
    assert analyze(path).columns == list(plane.COLUMNS)
    assert list(analyze(path, epochs=[]).schema.items()) == list(analyze(path).schema.items())


def test_rows_stand_by_run_split_waist_layer_as_executed_and_epoch(tmp_path):
    path = tmp_path / "lab.zarr"
    y = np.arange(6) % 2
    data = {"train": (numbered(6, 2), y), "test": (numbered(6, 2) + 50, y)}
    layers = {"z": relu(0, 2, 6, 2), "a": relu(1, 2, 6, 2)}
    for run in ("run2", "run10"):
        make_run(path, data, {"train": layers, "test": layers}, run=run, epochs=[10, 2])
    table = analyze(path, "v: *=identity | exact", "u: *=identity | exact; a=identity | threshold(0)")
    assert table.select("run", "split", "waist", "layer", "epoch").rows() == [
        (run, split, waist, layer, epoch)
        for run in ("run10", "run2")
        for split in ("train", "test")
        for waist in ("u", "v")
        for layer in ("z", "a")
        for epoch in (2, 10)
    ]


def test_what_is_asked_for_is_what_is_given(tmp_path):
    path = tmp_path / "lab.zarr"
    layers = {"a": relu(0, 3, 20, 2), "b": relu(1, 3, 20, 2), "c": relu(2, 3, 20, 2)}
    for run in ("r0", "r1"):
        make_store(path, numbered(20, 2), np.arange(20) % 3, layers=layers, run=run, epochs=[0, 1, 5])
    everything = analyze(path)
    chosen = analyze(path, runs=["r1"], layers=["c", "a"], epochs=[5, 0])
    expected = everything.filter(pl.col("run") == "r1", pl.col("layer") != "b", pl.col("epoch") != 1)
    told = ["dpi_xt", "dpi_ty"]  # against the layers that are asked for
    assert chosen.drop(told).equals(expected.drop(told), null_equal=True)
    assert len(chosen) == 4
    assert analyze(path, runs=["r0", "r0"], epochs=[1, 1]).equals(everything.filter(run="r0", epoch=1))


def test_runs_by_a_pattern(tmp_path):
    """``*`` stands for any text; a run that is called so is itself alone; what nothing fits is refused."""
    for run in ("a-1", "a-2", "b-1", "*-1"):
        make_store(tmp_path / "lab.zarr", numbered(4, 2), layers={"t": relu(0, 1, 4, 2)}, run=run)

    def chosen(*runs):
        return analyze(tmp_path / "lab.zarr", runs=runs)["run"].to_list()

    assert chosen("a-*") == chosen("a-2", "a-*", "a-1") == ["a-1", "a-2"]
    assert chosen("*1*") == ["*-1", "a-1", "b-1"]
    assert chosen("*-1") == ["*-1"]
    with pytest.raises(UnknownNameError, match=r"has no run 'c\*'; it has"):
        chosen("a-*", "c*")


def test_layers_that_the_waist_does_not_name_are_left_out(tmp_path):
    layers = {"a": relu(0, 1, 20, 2), "b": relu(1, 1, 20, 2)}
    path = make_store(tmp_path / "lab.zarr", numbered(20, 2), layers=layers)
    assert analyze(path, "w: b=identity | exact")["layer"].to_list() == ["b"]


def test_waists_asked_for_together_are_those_asked_for_alone(tmp_path):
    path = make_store(tmp_path / "lab.zarr", numbered(20, 2), np.arange(20) % 3, layers={"t": relu(0, 1, 20, 2)})
    waists = [f"w{edge}: x=identity | threshold({edge}); t=identity | quantile(bins=3)" for edge in (2, 9, 15)]
    together = Study(path, tmp_path / "together").analyze([*waists, "e: *=identity | exact"])
    alone = [Study(path, tmp_path / "alone").analyze(waist) for waist in ("e: *=identity | exact", *sorted(waists))]
    assert together.equals(pl.concat(alone))
    assert together["distinct_x"].to_list() == [20, 2, 2, 2]
    assert together["h_x"].n_unique() == 4


def test_units_and_beta(tmp_path):
    path = make_store(tmp_path / "lab.zarr", numbered(60, 2), np.arange(60) % 5, layers={"t": relu(0, 2, 60, 2)})
    bits, nats = analyze(path), analyze(path, unit="nats", beta=2.5)
    assert bits["unit"].unique().to_list() == ["bits"]
    assert nats["unit"].unique().to_list() == ["nats"]
    for column in plane.IN_UNITS:
        np.testing.assert_allclose(nats[column], bits[column] * math.log(2), rtol=1e-15)
    np.testing.assert_allclose(nats["ib"], nats["i_xt"] - 2.5 * nats["i_ty"], rtol=1e-15)
    np.testing.assert_allclose(bits["ib"], bits["i_xt"] - bits["i_ty"], rtol=1e-15)
    assert nats["beta"].unique().to_list() == [2.5]


def test_one_waist_needs_no_list(tmp_path):
    path = make_store(tmp_path / "lab.zarr", numbered(20, 2), layers={"t": relu(0, 1, 20, 2)})
    study = ibstore.open(str(path))
    assert study.analyze(WAIST).equals(study.analyze([WAIST]))
    assert study.analyze(study.meanings()["w"]).equals(study.analyze([WAIST]))


def test_a_waist_that_was_asked_for_is_known_by_its_name(tmp_path):
    study = ibstore.open(make_store(tmp_path / "lab.zarr", numbered(20, 2), layers={"t": relu(0, 1, 20, 2)}))
    with pytest.raises(UnknownNameError, match="there is no waist 'w'"):
        study.analyze("w")
    table = study.analyze([WAIST])
    assert study.analyze("w").equals(table)
    assert study.ask("w").doctor().equals(study.ask(WAIST).doctor())
    assert study.sweep("w", [2]).equals(study.sweep(WAIST, [2]))


def test_progress_is_told(tmp_path):
    path = make_store(tmp_path / "lab.zarr", numbered(20, 2), layers={"a": relu(0, 2, 20, 2), "b": relu(1, 2, 20, 2)})
    events: list[Event] = []
    analyze(path, emit=events.append)
    assert [(event.stage, event.done, event.total) for event in events] == [("analyze", done, 4) for done in range(5)]
    assert events[2].detail == "run0 · b · epoch 0"
    events.clear()
    analyze(path, emit=events.append)
    assert events == []


# ── edges over the whole run ────────────────────────────────────────────────────────────────────────────────


def test_bins_over_the_run_mean_the_same_at_all_epochs(tmp_path):
    t = np.stack([np.linspace(0, 1, 100), np.linspace(9, 10, 100)])[..., None].astype(np.float32)
    path = make_store(tmp_path / "lab.zarr", numbered(100, 2), layers={"t": t})
    assert analyze(path, "w: t=identity | quantile(bins=2)")["distinct_t"].to_list() == [2, 2]
    assert analyze(path, "v: t=identity | quantile(bins=2, per=run)")["distinct_t"].to_list() == [1, 1]


def test_edges_over_the_run_are_fitted_once(tmp_path, monkeypatch):
    layers = {"a": relu(0, 5, 50, 3), "b": relu(1, 5, 50, 3)}
    path = make_store(tmp_path / "lab.zarr", numbered(50, 2), layers=layers)
    fitted, original = [], engine.fit_together

    def counting(source, recipes, allowance):
        fitted.append((source.names[0], len(source.names), len(recipes)))
        return original(source, recipes, allowance)

    monkeypatch.setattr(engine, "fit_together", counting)
    analyze(path, "w: *=identity | quantile(bins=2, per=run)", "v: *=identity | quantile(bins=3, per=run)")
    assert fitted == [(f"run 'run0', layer '{layer}', epoch 0", 5, 2) for layer in "ab"]


def test_a_store_may_hold_an_input_that_no_layer_is_compared_with(tmp_path):
    """Two splits of one run have inputs of their own."""
    y = np.arange(8) % 2
    data = {"train": (numbered(8, 1), y), "test": (np.zeros((8, 1), np.float32), y)}
    layers = {"t": relu(0, 1, 8, 2)}
    path = make_run(tmp_path / "lab.zarr", data, {"train": layers, "test": layers})
    assert analyze(path)["h_x"].to_list() == [3, 0]
