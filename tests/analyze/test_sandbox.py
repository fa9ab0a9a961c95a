import tempfile
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from ibstore.analyze import Study, plane
from ibstore.analyze.sql import sandbox, tables
from ibstore.analyze.tasks import patterns_of, tasks
from ibstore.errors import QueryError

from .stores import files_below, make_store, numbered

outside = pl.DataFrame({"secret": [1]})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """An analyzed store, with a file beside it that nobody may read."""
    folder = tmp_path_factory.mktemp("sandbox")
    t = np.arange(24, dtype=np.float32).reshape(2, 6, 2)
    store = make_store(folder / "lab.zarr", numbered(6, 2), np.arange(6) % 2, layers={"t": t})
    (folder / "secret.csv").write_text("secret\n1\n")
    (folder / "secret.parquet").write_bytes(b"")
    outside.write_parquet(folder / "secret.parquet")
    found = Study(store)
    found.analyze(["w: *=identity | quantile(bins=2)"])
    return found


@pytest.fixture(scope="module")
def locked(study, tmp_path_factory):
    """What a query runs in, opened once for many."""
    runs = study.store.runs()
    todo = tasks(runs, list(study.meanings().values())[-1:], None, None)
    patterns = patterns_of(todo, study.parts, tmp_path_factory.mktemp("scratch"))
    assert len(patterns) == 3
    with sandbox.memory(tmp_path_factory.mktemp("spill")) as db:
        computed = {
            "information_plane": plane.table(todo, ["plugin"], study.parts),
            "entropies": plane.entropies(todo, ["plugin"], study.parts),
        }
        tables.lay(db, runs, computed, patterns, "wide t")
        sandbox.lock(db, [Path(path) for path in patterns["path"]])
        yield db


@pytest.fixture
def refused(study, locked, monkeypatch, tmp_path):
    """Ask and be refused, without a trace on the disk; ``{folder}`` and ``{part}`` are filled in."""
    folder = study.store.storage.root.parent
    part = next((study.parts.storage.root / "information_plane").iterdir())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in files_below(folder)}

    def ask(sql):
        filled = sql.replace("{folder}", str(folder)).replace("{part}", str(part))
        with pytest.raises(QueryError) as found:
            sandbox.select(locked, filled)
        assert {path: path.stat().st_mtime_ns for path in files_below(folder)} == before
        assert not list(tmp_path.iterdir())
        return str(found.value)

    return ask


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("COPY runs TO '{folder}/out.csv'", "COPY"),
        ("COPY (SELECT 1) TO '{folder}/out.parquet' (FORMAT parquet)", "COPY"),
        ("COPY runs TO '/tmp/ibstore-out.csv'", "COPY"),
        ("COPY runs TO 'out.csv'", "COPY"),
        ("COPY runs TO '{part}'", "COPY"),
        ("COPY runs FROM '{folder}/secret.csv'", "COPY"),
        ("ATTACH '{folder}/new.db'", "ATTACH"),
        ("ATTACH ':memory:' AS other", "ATTACH"),
        ("DETACH memory", "DETACH"),
        ("USE memory", "SET"),
        ("EXPORT DATABASE '{folder}/export'", "EXPORT"),
        ("IMPORT DATABASE '{folder}/export'", ""),
        ("INSTALL httpfs", "LOAD"),
        ("LOAD httpfs", "LOAD"),
        ("UPDATE EXTENSIONS", ""),
        ("SET threads = 1", "SET"),
        ("SET enable_external_access = true", "SET"),
        ("SET lock_configuration = false", "SET"),
        ("RESET lock_configuration", "SET"),
        ("SET VARIABLE a = 1", "SET"),
        ("PRAGMA enable_external_access", ""),
        ("PRAGMA database_list", ""),
        ("PRAGMA threads = 1", ""),
        ("CREATE TABLE a (i INT)", "CREATE"),
        ("CREATE TEMP TABLE a AS SELECT 1", "CREATE"),
        ("CREATE OR REPLACE VIEW information_plane AS SELECT 1", "CREATE"),
        ("CREATE MACRO f() AS 1", "CREATE"),
        ("CREATE TYPE mood AS ENUM ('a')", "CREATE"),
        ("CREATE SECRET s (TYPE s3)", "CREATE"),
        ("INSERT INTO runs SELECT * FROM runs", "INSERT"),
        ("UPDATE runs SET run = 'x'", "UPDATE"),
        ("DELETE FROM runs", "DELETE"),
        ("TRUNCATE runs", ""),
        ("MERGE INTO runs USING runs AS o ON true WHEN MATCHED THEN DELETE", ""),
        ("ALTER TABLE runs RENAME TO r", "ALTER"),
        ("DROP TABLE runs", "DROP"),
        ("CALL enable_logging(storage='file', storage_path='{folder}/log')", "CALL"),
        ("CALL pragma_version()", "CALL"),
        ("CHECKPOINT", ""),
        ("VACUUM", "VACUUM"),
        ("ANALYZE", ""),
        ("BEGIN", "TRANSACTION"),
        ("COMMIT", "TRANSACTION"),
        ("PREPARE p AS SELECT 1", "PREPARE"),
        ("EXECUTE p", "EXECUTE"),
        ("PIVOT runs ON run USING count(*)", "MULTI"),
    ],
)
def test_only_a_select_is_taken(sql, kind, refused):
    said = refused(sql)
    assert "\n" not in said
    assert said.startswith(f"a query can only SELECT, this is {kind}")
    assert said.endswith("results can be saved with --format and --out")


@pytest.mark.parametrize(
    "sql", ["SELECT 1; SELECT 2", "SELECT 1; COPY runs TO '{folder}/out.csv'", "", " ; ", "-- nothing"]
)
def test_exactly_one_statement_is_taken(sql, refused):
    assert refused(sql).startswith("a query is exactly one SELECT, this text has ")


@pytest.mark.parametrize(
    "sql",
    [
        "EXPLAIN ANALYZE COPY runs TO '{folder}/out.csv'",
        "EXPLAIN ANALYZE SELECT 1",
        "explain  analyse\nselect 1",
        "EXPLAIN \t ANALYZE SELECT 1",
        "EXPLAIN /* */ ANALYZE COPY runs TO '{folder}/out.csv'",
        "EXPLAIN -- x\nANALYZE COPY runs TO '{folder}/out.csv'",
        "/* */ EXPLAIN ANALYZE COPY runs TO '{folder}/out.csv'",
        "EXPLAIN (ANALYZE) COPY runs TO '{folder}/out.csv'",
        "EXPLAIN (ANALYZE, FORMAT json) COPY runs TO '{folder}/out.csv'",
        "EXPLAIN EXPLAIN ANALYZE COPY runs TO '{folder}/out.csv'",
        "EXPLAIN COPY runs TO '{folder}/out.csv'",
        "EXPLAIN CREATE TABLE a (i INT)",
        "EXPLAIN ATTACH '{folder}/new.db'",
        "EXPLAIN SELECT * FROM '{folder}/secret.csv'",
        "EXPLAIN SELECT * FROM read_csv('{folder}/secret.csv')",
    ],
)
def test_only_a_plain_explain_of_a_select_is_taken(sql, refused):
    refused(sql)


def test_explain_analyze_is_told_what_to_write(refused):
    for sql in ("EXPLAIN ANALYZE SELECT 1", "explain  analyse\nselect 1"):
        assert refused(sql) == "of EXPLAIN only the plain form is taken; write EXPLAIN SELECT …"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM '{folder}/secret.csv'",
        "SELECT * FROM '{folder}/secret.parquet'",
        "SELECT * FROM '{folder}/lab.zarr/zarr.json'",
        "FROM '{folder}/secret.csv'",
        "DESCRIBE SELECT * FROM '{folder}/secret.csv'",
        "DESCRIBE '{folder}/secret.csv'",
        "SUMMARIZE SELECT * FROM '{folder}/secret.csv'",
        "SUMMARIZE '{folder}/secret.csv'",
        "WITH a AS (FROM read_csv('{folder}/secret.csv')) FROM a",
        "SELECT (SELECT secret FROM read_csv('{folder}/secret.csv'))",
        "SELECT * FROM read_csv('{folder}/secret.csv')",
        "SELECT * FROM read_csv_auto('{folder}/*.csv')",
        "SELECT * FROM sniff_csv('{folder}/secret.csv')",
        "SELECT * FROM read_parquet('{folder}/secret.parquet')",
        "SELECT * FROM read_parquet(['{part}', '{folder}/secret.parquet'])",
        "SELECT * FROM read_parquet('{part}/../../../secret.parquet')",
        "SELECT * FROM parquet_metadata('{folder}/secret.parquet')",
        "SELECT * FROM parquet_schema('{folder}/secret.parquet')",
        "SELECT * FROM read_json('{folder}/lab.zarr/zarr.json')",
        "SELECT * FROM read_text('{folder}/secret.csv')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_blob('{folder}/secret.csv')",
        "SELECT * FROM read_blob('/proc/self/environ')",
        "SELECT * FROM read_blob('{folder}/lab.zarr.analysis/waists/w.json')",
        "SELECT * FROM read_duckdb('{folder}/secret.csv')",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM query('COPY runs TO ''{folder}/out.csv''')",
        "SELECT * FROM query('SELECT * FROM read_csv(''{folder}/secret.csv'')')",
        "SELECT * FROM query_table('{folder}/secret.csv')",
        "SELECT * FROM query_table(['{folder}/secret.csv'])",
        "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('FROM read_csv(''{folder}/secret.csv'')'))",
        "SELECT * FROM read_csv('https://example.com/secret.csv')",
        "SELECT * FROM 's3://bucket/secret.parquet'",
        "SELECT * FROM enable_logging(storage='file', storage_path='{folder}/log')",
        "SELECT * FROM enable_logging('QueryLog')",
        "SELECT * FROM disable_logging()",
        "SELECT * FROM duckdb_secrets()",
        "SELECT * FROM force_checkpoint()",
        "SELECT * FROM outside",
        "SELECT * FROM study",
        "SELECT * FROM db",
        "SELECT * FROM polars",
        "SELECT getenv('HOME')",
        "SELECT nextval('a')",
        "SELECT * FROM pandas_scan()",
        "SELECT * FROM arrow_scan()",
        "SELECT * FROM python_map_function((SELECT 1))",
    ],
)
def test_a_select_reaches_nothing_but_the_tables(sql, refused):
    assert "secret\n1" not in refused(sql)


def test_a_query_is_asked_in_that_sandbox(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    secret = study.store.storage.root.parent / "secret.csv"
    for sql in (f"COPY runs TO '{tmp_path}/out.csv'", "SET threads = 1", f"FROM read_csv('{secret}')", "FROM outside"):
        with pytest.raises(QueryError):
            study.query(sql)
    with pytest.raises(QueryError, match="file system operations are disabled"):
        study.query(f"SELECT * FROM read_text('{secret}')")
    assert study.query("SELECT current_setting('lock_configuration')").item()
    assert not list(tmp_path.iterdir())


def test_the_temporary_folder_cannot_be_written(study, tmp_path):
    spill = tmp_path / "spill"
    spill.mkdir()
    with sandbox.memory(spill) as db:
        sandbox.lock(db, [])
        for sql in (f"COPY (SELECT 1) TO '{spill}/out.csv'", f"EXPLAIN ANALYZE COPY (SELECT 1) TO '{spill}/out.csv'"):
            with pytest.raises(QueryError):
                sandbox.select(db, sql)
        with pytest.raises(duckdb.Error, match="locked"):
            db.execute("SET temp_directory = '/tmp'")
    assert not list(spill.iterdir())


def test_the_lock_alone_keeps_out(tmp_path):
    """Even a statement that was taken by mistake finds no file."""
    (tmp_path / "secret.csv").write_text("secret\n1\n")
    with sandbox.memory(tmp_path / "spill") as db:
        sandbox.lock(db, [])
        for sql in (
            f"FROM read_csv('{tmp_path}/secret.csv')",
            f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
            f"ATTACH '{tmp_path}/new.db'",
            "INSTALL httpfs",
            "SET lock_configuration = false",
            "SET allowed_paths = ['/']",
            "SET python_enable_replacements = true",
            "FROM outside",
        ):
            with pytest.raises(duckdb.Error):
                db.execute(sql)
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT 1 AS a", [(1,)]),
        ("  select 1;  ", [(1,)]),
        ("-- why\nSELECT 1 /* because */", [(1,)]),
        ("WITH a AS (SELECT 1 AS i UNION ALL SELECT 2) SELECT sum(i)::INT FROM a", [(3,)]),
        ("WITH RECURSIVE a(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM a WHERE i < 3) FROM a", [(1,), (2,), (3,)]),
        ("FROM information_plane SELECT DISTINCT layer", [("t",)]),
        ("VALUES (1, 'a'), (2, 'b')", [(1, "a"), (2, "b")]),
        ("TABLE samples", [("run0", "train", i, i % 2) for i in range(6)]),
        ("SELECT * FROM query('SELECT 7')", [(7,)]),
        ("SELECT run FROM runs UNION SELECT run FROM runs", [("run0",)]),
        ("SELECT 'COPY; ATTACH' AS text", [("COPY; ATTACH",)]),
        ("SELECT 1 AS a, 2 AS a", [(1, 2)]),
        ("SELECT 1 WHERE false", []),
    ],
)
def test_a_select_is_answered(sql, rows, study):
    assert study.query(sql).rows() == rows


def test_words_that_count_as_a_select(study):
    assert study.query("DESCRIBE information_plane")["column_name"].to_list()[:3] == ["run", "split", "epoch"]
    assert study.query("SUMMARIZE SELECT epoch FROM epochs")["max"].to_list() == ["1"]
    assert "joint_counts" in study.query("SHOW TABLES")["name"].to_list()
    assert study.query("EXPLAIN SELECT * FROM runs").columns == ["explain_key", "explain_value"]
    assert study.query("explain  from runs").height == 1
    assert study.query("-- why\nEXPLAIN SELECT 1").height == 1


def test_an_answer_with_two_columns_of_one_name_keeps_both(study):
    joined = study.query("SELECT * FROM runs JOIN layers ON runs.run = layers.run")
    assert {"run", "run_1", "layer"} <= set(joined.columns)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELEC 1", 'Parser Error: syntax error at or near "SELEC"'),
        ("SELECT * FROM nothing", "Catalog Error: Table with name nothing does not exist!"),
        ("SELECT nothing FROM runs", 'Binder Error: Referenced column "nothing" not found'),
        ("SELECT 'a'::INT", "Conversion Error: Could not convert string 'a' to INT32"),
        ("SELECT CASE WHEN i = 99999 THEN 'a' ELSE '1' END::INT FROM range(100000) AS r(i)", "Conversion Error"),
        ("SELECT error('boom') FROM range(100000)", "Invalid Input Error: boom"),
        ("SELECT ?", "Values were not provided for the following"),
    ],
)
def test_errors_are_shown_as_duckdb_says_them(sql, said, study):
    with pytest.raises(QueryError) as found:
        study.query(sql)
    assert said in str(found.value)
    assert found.value.__suppress_context__


def test_a_typing_error_is_marked_by_duckdb(study):
    with pytest.raises(QueryError, match=r"LINE 1: SELECT h_t FORM information_plane\n\s+\^"):
        study.query("SELECT h_t FORM information_plane")


@pytest.mark.parametrize(
    ("sql", "types"),
    [("SELECT INTERVAL 1 DAY AS i, 2 AS j", "i INTERVAL, j INTEGER"), ("SELECT union_value(a := 1) AS u", "u UNION")],
)
def test_types_that_no_table_shows_are_told(sql, types, study):
    with pytest.raises(QueryError) as found:
        study.query(sql)
    assert f"the answer's types ({types}" in str(found.value)
    assert str(found.value).endswith("write the column as CAST(… AS VARCHAR)")
    assert study.query("SELECT CAST(INTERVAL 1 DAY AS VARCHAR) AS i").rows() == [("1 day",)]


def test_large_whole_numbers_are_kept(study):
    assert study.query("SELECT sum(n) AS n FROM joint_counts").rows() == [(12,)]
