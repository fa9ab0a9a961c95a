import json

import numpy as np
import polars as pl
import pytest

from ibstore.analyze import Study, losses
from ibstore.analyze.sql.tables import TABLES
from ibstore.errors import QueryError, UsageError, ValuesError
from ibstore.events import Event
from ibstore.store import ProbeReader, Store
from tests.store import stores as written

from .stores import make_run, make_store, numbered

WAIST = "w: x=identity | threshold(1.5); *=identity | quantile(bins=2)"


def relu(seed, *shape):
    return np.maximum(np.random.default_rng(seed).normal(size=shape), 0).astype(np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two runs: one of two splits and two layers, one without labels."""
    path = tmp_path_factory.mktemp("tables") / "lab.zarr"
    data = {"train": (numbered(4, 2), np.array([1, 0, 1, 2])), "test": (numbered(4, 2) + 9, np.array([5, 5, 5, 5]))}
    layers = {"conv": relu(0, 2, 4, 3, 2, 2), "out": relu(1, 2, 4, 2)}
    metrics = {
        0: {"train": {"loss": 2.5, "margin": float("nan")}, "validation": {"loss": 3.0}},
        7: {"train": {"loss": 0.5, "accuracy": 1.0}, "test": {"loss": float("inf")}},
    }
    make_run(
        path,
        data,
        {"train": layers, "test": layers},
        run="b",
        epochs=[0, 7],
        sample=np.array([3, 9, 1, 4]),
        metrics=metrics,
    )
    return make_store(path, numbered(3, 2), layers={"out": relu(2, 1, 3, 2)}, run="a")


@pytest.fixture(scope="module")
def study(store):
    """The same, analyzed."""
    found = Study(store)
    found.analyze([WAIST, "v: *=identity | exact"])
    return found


def test_every_table_is_there(study):
    assert study.query("SHOW TABLES")["name"].to_list() == sorted(TABLES)


def test_runs(study):
    rows = study.query(
        "SELECT run, epochs, device, threads, probe_batch, recipe, seed, settings FROM runs ORDER BY run"
    ).rows()
    assert [row[:7] for row in rows] == [("a", 1, "cpu", 1, 1000, None, None), ("b", 2, "cpu", 1, 1000, None, None)]
    assert all(json.loads(row[7]) == {} for row in rows)


def test_layers(study):
    assert study.query("SELECT * FROM layers ORDER BY run, position").rows() == [
        ("a", "out", 0, [2], 2, "float32"),
        ("b", "conv", 0, [3, 2, 2], 12, "float32"),
        ("b", "out", 1, [2], 2, "float32"),
    ]


def test_epochs_have_a_column_for_every_scalar(study):
    found = study.query("SELECT run, epoch, step, split, loss, accuracy, margin FROM epochs ORDER BY ALL")
    assert found.fill_nan(-1).rows() == [
        ("a", 0, 0, "train", None, None, None),
        ("b", 0, 0, "test", None, None, None),
        ("b", 0, 0, "train", 2.5, None, -1),
        ("b", 0, 0, "validation", 3.0, None, None),
        ("b", 7, 70, "test", float("inf"), None, None),
        ("b", 7, 70, "train", 0.5, 1.0, None),
    ]


def test_samples_have_labels_where_there_are_some(study):
    assert study.query("SELECT * FROM samples ORDER BY ALL").rows() == [
        *(("a", "train", sample, None) for sample in (0, 1, 2)),
        *(("b", "test", sample, 5) for sample in (1, 3, 4, 9)),
        *(("b", "train", sample, label) for sample, label in ((1, 1), (3, 1), (4, 2), (9, 0))),
    ]


def test_the_information_plane_is_the_one_of_analyze_in_bits(study):
    table = study.analyze([WAIST, "v: *=identity | exact"])
    kept = study.query("SELECT * FROM information_plane")
    keys = ["run", "split", "waist", "layer", "epoch"]
    assert kept.columns == table.columns
    assert kept.sort(keys).equals(table.sort(keys))
    assert study.query("SELECT DISTINCT unit, beta FROM information_plane").rows() == [("bits", 1.0)]


def test_patterns_are_of_every_layer_and_epoch_and_of_the_input(study):
    found = study.query(
        "SELECT run, split, layer, epoch, count(*) AS n FROM patterns WHERE waist = 'w' GROUP BY ALL ORDER BY ALL"
    )
    assert found.rows() == [
        ("a", "train", "out", 0, 3),
        ("a", "train", "x", None, 3),
        *(
            ("b", split, layer, epoch, 4)
            for split in ("test", "train")
            for layer, epoch in (("conv", 0), ("conv", 7), ("out", 0), ("out", 7), ("x", None))
        ),
    ]
    x = study.query(
        "SELECT sample, key FROM patterns WHERE run = 'b' AND split = 'train' AND layer = 'x' AND waist = 'w'"
    )
    assert dict(x.rows()) == {3: b"\x00", 9: b"\x00", 1: b"\xc0", 4: b"\xc0"}  # two units, one bit each


def test_joint_counts_are_the_patterns_counted(study):
    joint = study.query("SELECT * FROM joint_counts")
    assert joint.columns == ["run", "split", "epoch", "layer", "waist", "x", "t", "y", "n"]
    counted = study.query(
        """
        SELECT t.run, t.split, t.epoch, t.layer, t.waist, x.key AS x, t.key AS t, label AS y, count(*) AS n
        FROM patterns t JOIN patterns x USING (run, split, waist, sample) JOIN samples USING (run, split, sample)
        WHERE x.layer = 'x' AND t.layer <> 'x' GROUP BY ALL
        """
    )
    assert sorted(joint.rows(), key=repr) == sorted(counted.rows(), key=repr)
    per_row = joint.group_by("run", "split", "epoch", "layer", "waist").agg(pl.col("n").sum())
    assert set(per_row.select("run", "n").rows()) == {("a", 3), ("b", 4)}
    assert joint.filter(run="a")["y"].null_count() == len(joint.filter(run="a")) > 0


def test_entropies_can_be_had_from_joint_counts(study):
    found = study.query(
        """
        WITH t AS (SELECT run, split, epoch, layer, waist, t, sum(n) AS n FROM joint_counts GROUP BY ALL)
        SELECT run, split, epoch, layer, waist, log2(sum(n)) - sum(n * log2(n)) / sum(n) AS h
        FROM t GROUP BY ALL ORDER BY ALL
        """
    )
    kept = study.query("SELECT run, split, epoch, layer, waist, h_t FROM information_plane ORDER BY ALL")
    np.testing.assert_allclose(found["h"], kept["h_t"], atol=1e-12)


def test_a_layer_may_be_called_like_the_input(tmp_path):
    layers = {"x": relu(0, 2, 6, 2), "out": relu(1, 2, 6, 2)}
    path = make_store(tmp_path / "lab.zarr", numbered(6, 2), np.arange(6) % 2, layers=layers)
    study = Study(path)
    study.analyze(["w: *=identity | quantile(bins=2)", "v: x=identity | exact; out=identity | exact"])
    totals = study.query(
        "SELECT layer, epoch, waist, sum(n)::INT AS n FROM joint_counts GROUP BY ALL ORDER BY ALL"
    ).rows()
    assert totals == [(layer, epoch, waist, 6) for layer in ("out", "x") for epoch in (0, 1) for waist in ("v", "w")]


QUANTITIES = (
    *("batches", "gradient_mean", "gradient_std", "snr"),
    *("weight_norm", "learning_rate", "predicted_change", "loss_change"),
)


def test_without_any_dynamics_their_table_is_empty_and_has_its_columns(study):
    found = study.query("SELECT * FROM dynamics")
    assert found.height == 0
    assert found.columns == ["run", "epoch", "step", "variant", "layer", *QUANTITIES]


def write_dynamics(path, metrics, dynamics, steps=None):
    """A run of as many epochs, the last one in a segment of its own."""
    values = written.layers(epochs=len(metrics))
    with written.open_writer(path, values) as writer:
        cuts = [range(len(metrics) - 1), range(len(metrics) - 1, len(metrics))]
        for epochs in cuts:
            segment = written.fill(writer.segment(*epochs), values, *epochs)
            segment.commit(
                [10 * epoch for epoch in epochs], *([each[i] for i in epochs] for each in (metrics, dynamics))
            )
    return Study(path)


def test_dynamics_are_a_row_a_variant_and_layer_beside_the_change_of_the_loss(tmp_path):
    full = {name: float(number) for number, name in enumerate(QUANTITIES[:-1], start=2)}
    losses = [{"train": {"loss": loss}, "test": {"loss": 9.0}} for loss in (2.0, 1.5, 1.75)]
    dynamics = [
        {"epoch": {"out": {"batches": 0, "snr": None, "weight_norm": 0.5}}},
        {"epoch": {"conv": {**full, "of_my_own": 1.0}, "out": {"snr": float("inf")}}, "fixed": {"out": {"snr": 3.0}}},
        {"epoch": {"out": {"snr": 4.0}}},
    ]
    study = write_dynamics(tmp_path / "lab.zarr", losses, dynamics)
    found = study.query("SELECT * FROM dynamics ORDER BY epoch, variant, layer")
    assert found.select("run", "epoch", "step", "variant", "layer", "snr", "loss_change").rows() == [
        ("run0", 0, 0, "epoch", "out", None, None),
        ("run0", 1, 10, "epoch", "conv", 5.0, -0.5),
        ("run0", 1, 10, "epoch", "out", float("inf"), -0.5),
        ("run0", 1, 10, "fixed", "out", 3.0, -0.5),
        ("run0", 2, 20, "epoch", "out", 4.0, 0.25),
    ]
    assert found.row(1, named=True).items() >= full.items()
    assert found.row(0)[5:] == (0, None, None, None, 0.5, None, None, None)
    assert found.schema["batches"] == pl.Int64


@pytest.mark.parametrize(
    ("metrics", "changes"),
    [
        ([{"test": {"loss": 5.0}}, {"test": {"loss": 4.0}}, {"test": {"loss": 2.0}}], [None, None, None]),
        ([{"train": {"accuracy": 1.0}}, {}, {}], [None, None, None]),
        ([{"train": {"loss": 5.0}}, {"test": {"loss": 4.0}}, {"train": {"loss": 2.0}}], [None, None, None]),
        ([{}, {"train": {"loss": 4.0}}, {"train": {"loss": 1.0}}], [None, None, -3.0]),
    ],
)
def test_a_change_of_the_loss_is_between_two_epochs_that_have_one_of_the_same_split(tmp_path, metrics, changes):
    study = write_dynamics(tmp_path / "lab.zarr", metrics, [{"epoch": {"out": {"snr": 1.0}}}] * 3)
    assert study.query("SELECT loss_change FROM dynamics ORDER BY epoch")["loss_change"].to_list() == changes


def test_where_train_has_no_loss_it_is_that_of_the_first_recorded_split_with_one(tmp_path):
    data = {"test": (numbered(4, 2), None), "all": (numbered(4, 2), None)}
    metrics = {epoch: {"train": {"accuracy": 0.5}, "all": {"loss": 3.0 - epoch}} for epoch in (0, 1)}
    layers = {"out": relu(1, 2, 4, 2)}
    path = make_run(tmp_path / "lab.zarr", data, {"test": layers, "all": layers}, metrics=metrics)
    (run,) = Store.open(path).runs()
    assert [change["loss_change"] for change, _ in losses._changes(run)] == [None, -1.0]


def test_dynamics_join_the_information_plane_by_layer(tmp_path):
    dynamics = [{"epoch": {"conv": {"snr": epoch + 0.5}}} for epoch in (0, 1, 2)]
    study = write_dynamics(tmp_path / "lab.zarr", [{}] * 3, dynamics)
    study.analyze([WAIST])
    joined = "SELECT epoch, snr, h_t > 0 FROM information_plane JOIN dynamics USING (run, epoch, layer) ORDER BY epoch"
    assert study.query(joined).rows() == [(epoch, epoch + 0.5, True) for epoch in (0, 1, 2)]


def test_before_anything_is_analyzed_the_tables_are_empty_and_a_notice_says_why(store, tmp_path):
    events: list[Event] = []
    study = Study(store, tmp_path / "results")
    for table in ("information_plane", "patterns", "joint_counts"):
        assert study.query(f"SELECT * FROM {table}", events.append).height == 0
    assert {event.detail for event in events} == {"nothing is analyzed yet: `ibstore analyze` fills information_plane"}
    assert all(event.is_notice for event in events)
    assert study.query("SELECT count(*) FROM samples").item() == 11
    assert not (tmp_path / "results").exists()


def test_empty_tables_have_the_columns_of_full_ones(store, study, tmp_path):
    columns = "SELECT table_name, column_name, data_type FROM information_schema.columns ORDER BY ALL"
    full, empty = study.query(columns), Study(store, tmp_path / "results").query(columns)
    assert set(TABLES) <= set(full["table_name"].to_list())
    assert empty.equals(full)


def test_labels_that_are_no_integers_are_refused_and_not_cut(store, monkeypatch):
    monkeypatch.setattr(ProbeReader, "labels", lambda _: np.array([0.0, 1.5, 2, 3]))
    with pytest.raises(ValuesError, match=r"a label must be an integer, found 1\.5"):
        Study(store).query("SELECT * FROM samples")


@pytest.mark.parametrize(
    "name", ["it's a store.zarr", "lab [1].zarr", "a*b?.zarr", "{a,b}.zarr", "ü#%41~.zarr", "a\\b.zarr"]
)
def test_names_with_signs_are_names(name, tmp_path):
    path = tmp_path / name
    make_store(path, numbered(4, 2), np.arange(4), layers={"it's": relu(0, 1, 4, 2)}, run="o'clock")
    study = Study(path)
    study.analyze(["w'w: *=identity | exact"])
    assert study.query("SELECT run, layer, waist FROM information_plane").rows() == [("o'clock", "it's", "w'w")]
    assert study.query("SELECT count(*) FROM patterns WHERE waist = 'w''w'").item() == 8


def test_further_tables(study):
    """A table of one's own stands beside the store's, whatever its name, and cannot take the name of one."""
    levels = pl.DataFrame({"run": ["b", "none"], "level": [0.5, 1.0]})
    sql = 'SELECT run, epochs, level FROM "my levels" JOIN runs USING (run)'
    assert study.query(sql, also={"my levels": levels}).rows() == [("b", 2, 0.5)]
    with pytest.raises(UsageError, match=r"^'Runs' is a table of the store's; give yours another name$"):
        study.query("SELECT 1", also={"Runs": levels})
    with pytest.raises(QueryError, match="my levels"):
        study.query(sql)


# ── macros ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_information_plane_by_hand_is_the_one_that_is_kept(study):
    table = study.analyze([WAIST]).filter(run="b", split="train")
    for layer in ("conv", "out"):
        by_hand = study.query(
            f"""
            SELECT epoch, entropy(t) AS h_t, mutual_information(x, t) AS i_xt, mutual_information(t, y) AS i_ty
            FROM waist_keys('b', '{layer}', 'w') WHERE split = 'train' GROUP BY epoch ORDER BY epoch
            """
        )
        expected = table.filter(layer=layer).select("epoch", "h_t", "i_xt", "i_ty")
        assert np.array(by_hand.rows()) == pytest.approx(np.array(expected.rows()), abs=1e-12)


def test_entropy_of_counts(study):
    assert study.query("SELECT entropy_bits(n) AS h FROM (VALUES (1), (1), (2)) counts(n)")["h"].to_list() == [1.5]
    assert study.query("SELECT mutual_information(a, b) AS i FROM (VALUES (1, 'x'), (2, 'y')) t(a, b)").item() == 1.0
    assert study.query("SELECT mutual_information(a, b) AS i FROM (VALUES (1, 'x'), (2, 'x')) t(a, b)").item() == 0.0
