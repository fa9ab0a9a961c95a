"""The lazy tables over stored activations: exact whatever is asked, and nothing is read that is not needed."""

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibstore.analyze import Study
from ibstore.analyze.sql import activations, pruning
from ibstore.errors import DamagedError, QueryError
from ibstore.store import Store
from ibstore.store.format.layout import Layout

from .stores import layer_file, make_run, make_store, numbered

IDS = np.array([7, 3, 40, 1, 5, 6, 90, 8, 2, 11, 4, 9])
CHUNK = 4
ODD = 'a "b".c'


def some(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


TRAIN = {"conv": some(0, 3, 12, 2, 2, 2), "out": some(1, 3, 12, 3), ODD: some(2, 3, 12)}
TEST = {name: some(3, 3, 12, *values.shape[2:]) for name, values in TRAIN.items()}
EPOCHS = [0, 2, 9]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Two runs, the first of two splits whose samples are in no order; layer `out` is larger in the second."""
    path = tmp_path_factory.mktemp("activations") / "lab.zarr"
    y = np.arange(12) % 2
    data = {"train": (numbered(12, 2), y), "test": (numbered(12, 2) + 1, y)}
    cut = Layout(CHUNK, 2 * CHUNK)
    make_run(path, data, {"train": TRAIN, "test": TEST}, run="a", epochs=EPOCHS, sample=IDS, rows=cut)
    return make_store(path, numbered(5, 1), layers={"out": some(4, 1, 5, 5, dtype=np.float16)}, run="b", rows=cut)


def long(run, split, values, ids, epochs=EPOCHS):
    """Rows of the table `activations`, as they should be."""
    return [
        (run, split, epoch, layer, sample, unit, float(value))
        for layer, array in values.items()
        for epoch, block in zip(epochs, array, strict=True)
        for sample, units in zip(ids.tolist(), block.reshape(len(ids), -1), strict=True)
        for unit, value in enumerate(units)
    ]


ROWS = [
    *long("a", "train", TRAIN, IDS),
    *long("a", "test", TEST, IDS),
    *long("b", "train", {"out": some(4, 1, 5, 5)}, np.arange(5), [0]),
]
NAMES = ["run", "split", "epoch", "layer", "sample", "unit", "value"]


class Tables:
    """The lazy tables beside the same rows in memory, asked without a sandbox."""

    def __init__(self, path, sql=""):
        self.db = duckdb.connect(config={"threads": 2})
        self.lazy = activations.lay(self.db, Store.open(path).runs(), sql)
        frame = pl.DataFrame(
            {name: [row[place] for row in ROWS] for place, name in enumerate(NAMES)},
            schema_overrides={"value": pl.Float32},
        )
        self.db.register("given", frame.to_arrow())
        self.db.execute("CREATE TABLE expected AS SELECT * FROM given")

    def rows(self, sql):
        return self.db.execute(sql).fetchall()

    def read(self, sql, table=0):
        """How many chunks a query reads of one of the tables."""
        before = self.lazy[table].chunks_read
        self.rows(sql)
        return self.lazy[table].chunks_read - before


@pytest.fixture(scope="module")
def tables(path):
    return Tables(path, "out conv")


def test_every_value_is_there_in_order(tables):
    assert tables.rows("SELECT * FROM activations") == ROWS
    assert tables.rows("SELECT count(*), sum(value) FROM activations") == [(len(ROWS), sum(row[-1] for row in ROWS))]


TEXT = {"run": ["a", "b", "c"], "split": ["train", "test", "x"], "layer": ["conv", "out", ODD, "none"]}
NUMBERS = {"epoch": [0, 1, 2, 9, 10], "sample": [*range(12), 40, 90], "unit": list(range(9)), "value": range(-5, 6)}


@st.composite
def conditions(draw, depth=2):
    """A condition as SQL, of what DuckDB pushes down and what it does not."""
    if depth and draw(st.booleans()):
        parts = draw(st.lists(conditions(depth - 1), min_size=2, max_size=3))
        return "(" + draw(st.sampled_from([" AND ", " OR "])).join(parts) + ")"
    column = draw(st.sampled_from([*TEXT, *NUMBERS]))
    known = TEXT.get(column) or NUMBERS[column]
    cast = "::FLOAT" if column == "value" else ""

    def constant():
        value = draw(st.sampled_from(known))
        return f"'{value}'" if column in TEXT else f"{value}{cast}"

    kinds = ["=", "<>", "<", ">=", "IN", "NOT IN", "BETWEEN", "IS NOT NULL", "IS NULL", "LIKE"]
    kind = draw(st.sampled_from(kinds))
    if kind in {"IN", "NOT IN"}:
        return f"{column} {kind} ({', '.join(constant() for _ in range(draw(st.integers(1, 3))))})"
    if kind == "BETWEEN":
        return f"{column} BETWEEN {constant()} AND {constant()}"
    if kind.startswith("IS"):
        return f"{column} {kind}"
    return f"{column}::VARCHAR LIKE '%a%'" if kind == "LIKE" else f"{column} {kind} {constant()}"


@settings(max_examples=150)
@given(
    condition=conditions(),
    columns=st.sampled_from(["*", "value", "sample, unit", "count(*)", "run, layer, epoch, sample, value"]),
    most=st.sampled_from([1, pruning.MOST]),
)
def test_any_filter_is_exact(tables, condition, columns, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning, "MOST", most)
        found = tables.rows(f"SELECT {columns} FROM activations WHERE {condition}")
    assert found == tables.rows(f"SELECT {columns} FROM expected WHERE {condition}")


@pytest.mark.parametrize(
    ("condition", "chunks"),
    [
        ("true", 6 * 9 + 2),
        ("run = 'b'", 2),
        ("run = 'nobody'", 0),
        ("split = 'test'", 27),
        ("layer = 'conv'", 18),
        ("layer IN ('conv', 'none')", 18),
        ("layer = 'conv' AND split = 'train'", 9),
        ("layer = 'conv' AND split = 'train' AND epoch = 2", 3),
        ("layer = 'conv' AND epoch = 3", 0),
        ("layer = 'conv' AND epoch > 0 AND split <> 'test'", 6),
        ("run = 'a' AND layer = 'conv' AND split = 'train' AND epoch IN (0, 9)", 6),
        ("run = 'a' AND layer = 'conv' AND split = 'train' AND epoch = 0 AND sample = 90", 1),
        ("run = 'a' AND layer = 'conv' AND split = 'train' AND epoch = 0 AND sample IN (7, 9)", 2),
        ("run = 'a' AND layer = 'conv' AND split = 'train' AND epoch = 0 AND sample = 100", 0),
        ("run = 'a' AND layer = 'conv' AND split = 'train' AND epoch = 0 AND unit = 5", 3),
        ("unit >= 8", 0),
        ("epoch = 2 OR run = 'b'", 18 + 2),
        ("layer = 'conv' AND value < 0::FLOAT", 18),
    ],
)
def test_only_what_is_needed_is_read(tables, condition, chunks):
    assert tables.read(f"SELECT sum(value) FROM activations WHERE {condition}") == chunks


def test_what_asks_for_no_value_reads_none(tables):
    assert tables.read("SELECT count(*) FROM activations WHERE epoch = 2 AND sample < 5") == 0
    assert tables.read("SELECT DISTINCT layer, unit FROM activations WHERE run <> 'b'") == 0


def test_limit_stops_the_reading(tables):
    assert tables.read("SELECT * FROM activations LIMIT 5") <= 4
    assert tables.read("SELECT value FROM activations WHERE split = 'test' LIMIT 1") <= 4


def test_a_table_a_layer_has_a_row_a_sample(tables):
    found = tables.rows("SELECT * FROM wide.out WHERE run = 'a' AND split = 'train'")
    assert found == [
        ("a", "train", epoch, sample, *map(float, units), None, None)
        for epoch, block in zip(EPOCHS, TRAIN["out"], strict=True)
        for sample, units in zip(IDS.tolist(), block, strict=True)
    ]
    other = tables.rows("SELECT sample, u4 FROM wide.out WHERE run = 'b'")
    assert other == list(enumerate(some(4, 1, 5, 5)[0, :, 4].tolist()))
    rows = tables.rows("SELECT u7, u0 FROM wide.conv WHERE epoch = 9 AND split = 'test' AND sample IN (90, 11)")
    block = TEST["conv"][2].reshape(12, 8)
    assert rows == [(block[6, 7], block[6, 0]), (block[9, 7], block[9, 0])]


def test_a_table_a_layer_reads_only_what_is_needed(tables):
    conv = 1
    assert tables.read("SELECT sum(u3) FROM wide.conv WHERE epoch = 2 AND split = 'train'", conv) == 3
    assert tables.read("SELECT u3 FROM wide.conv WHERE epoch = 2 AND sample = 11", conv) == 2 * 1
    assert tables.read("SELECT u3 FROM wide.conv WHERE u1 < 0::FLOAT AND run = 'b'", conv) == 0
    assert tables.read("SELECT count(*) FROM wide.conv", conv) == 0
    assert tables.read("SELECT * FROM wide.conv LIMIT 1", conv) <= 4


@settings(max_examples=50)
@given(
    condition=st.sampled_from(["u1 < 0::FLOAT", "u2 = 3::FLOAT", "u0 + u1 > 0", "u7 IN (1, 2)", "true"]),
    more=st.sampled_from(["sample < 8", "sample NOT IN (7, 90)", "epoch >= 2", "split = 'test' OR epoch = 0", "true"]),
    columns=st.sampled_from(["*", "u7", "u1, sample", "count(*)"]),
)
def test_a_table_a_layer_is_exact(tables, condition, more, columns):
    pivot = ", ".join(f"max(value) FILTER (unit = {unit}) AS u{unit}" for unit in range(8))
    expected = f"""(SELECT run, split, epoch, sample, {pivot} FROM expected WHERE layer = 'conv' GROUP BY ALL)"""
    found, due = (
        tables.rows(f"SELECT {columns} FROM {table} WHERE ({condition}) AND ({more}) ORDER BY ALL")
        for table in ("wide.conv", expected)
    )
    assert found == due


# ── as users ask ────────────────────────────────────────────────────────────────────────────────────────────


def test_queries_see_them(path):
    study = Study(path)
    sql = "SELECT epoch, avg(value) AS mean FROM activations WHERE layer = 'conv' AND split = 'train' GROUP BY epoch"
    means = dict(study.query(sql).rows())
    assert means == pytest.approx({epoch: block.mean() for epoch, block in zip(EPOCHS, TRAIN["conv"], strict=True)})
    assert study.query(f'SELECT sum(u0) AS s FROM wide."{ODD.replace(chr(34), chr(34) * 2)}"')["s"].to_list() == [
        TRAIN[ODD].sum() + TEST[ODD].sum()
    ]
    assert study.query("DESCRIBE activations")["column_name"].to_list() == NAMES
    assert study.query("FROM query_table('activ' || 'ations') SELECT count(*) AS n")["n"].to_list() == [len(ROWS)]
    joined = """
        SELECT s.label, avg(a.value) AS mean FROM activations a JOIN samples s USING (run, split, sample)
        WHERE a.layer = 'out' AND a.run = 'a' AND a.split = 'test' GROUP BY s.label ORDER BY s.label
    """
    expected = [TEST["out"][:, label::2].mean() for label in (0, 1)]
    assert study.query(joined)["mean"].to_list() == pytest.approx(expected)


def test_a_layer_that_no_text_names_has_no_wide_table(path):
    with pytest.raises(QueryError, match="none does not exist"):
        Study(path).query("SELECT * FROM wide.none")


def test_double_precision_is_kept(tmp_path):
    values = np.array([[[1 / 3], [2 / 3]]])
    path = make_store(tmp_path / "lab.zarr", numbered(2, 1), layers={"t": values})
    assert Study(path).query("SELECT value FROM activations")["value"].to_list() == values.reshape(-1).tolist()
    assert Study(path).query("SELECT u0 FROM wide.t")["u0"].to_list() == values.reshape(-1).tolist()


def test_a_damaged_chunk_is_told_by_its_name_and_costs_no_other(tmp_path):
    path = make_store(tmp_path / "lab.zarr", numbered(12, 1), layers={"t": some(0, 1, 12, 3)}, rows=Layout(4, 12))
    file = layer_file(path, "t", 0)
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedError, match=r"layer 't', epochs 0: .*t/c\.0\.0\.0 cannot be read \(chunk 0 "):
        Study(path).query("SELECT sum(value) FROM activations")
    rest = Study(path).query("SELECT sum(value) AS s FROM activations WHERE sample >= 4")["s"].to_list()
    assert rest == [some(0, 1, 12, 3)[0, 4:].sum()]
    file.unlink()
    with pytest.raises(DamagedError, match="is missing; restore it from a copy"):
        Study(path).query("SELECT sum(u0) FROM wide.t")


def test_a_store_without_runs_has_empty_tables(tmp_path):
    from ibstore.store import create_store

    create_store(tmp_path / "lab.zarr")
    assert Study(tmp_path / "lab.zarr").query("SELECT * FROM activations").rows() == []
