"""Sums of counts that many processes kept as Parquet, each of some samples: whatever their order, the same."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import duckdb

from ibstore.analyze.sql.counts import Counts, by_epoch, connected, refusals
from ibstore.analyze.sql.sandbox import identifier, quoted

HASH: Final = f"duckdb {duckdb.__version__}"
"""Whose hash it is that keys are cut into parts by: another version may have another."""


def summed(files: Sequence[Path], together: Sequence[str], memory: int, threads: int) -> dict[int, Counts]:
    """Counts of counts of t, ty, and of each input with t, by epoch.

    Parameters
    ----------
    files
        What `KeyCounter.partial` gave of a part of the keys, for each block of samples.
    together
        Inputs that the keys were counted with.
    memory, threads
        Of DuckDB, which spills to a temporary folder beyond them.
    """
    rows = f"read_parquet([{', '.join(quoted(file) for file in files)}])"
    variables = {"t": "", "ty": ", y", **{x: f", {identifier(x)}" for x in together}}
    each = [
        f"""
        SELECT epoch, '{name}' AS variable, n, count(*) AS keys
        FROM (SELECT epoch, sum(n)::BIGINT AS n FROM {rows} GROUP BY epoch, key{others}) GROUP BY ALL"""
        for name, others in variables.items()
    ]
    with (
        tempfile.TemporaryDirectory(prefix="ibstore-") as spill,
        connected(memory, threads, spill) as database,
        refusals(),
    ):
        return by_epoch(database.execute(f"{' UNION ALL '.join(each)} ORDER BY ALL").fetchnumpy())
