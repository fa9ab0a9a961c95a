"""What workers make of the counts that all blocks of a layer have left: sums, and what is kept of them.

Equal keys have equal hashes, so that of each part of the keys, cut by hash, counts of counts are whole, and those of
all parts just add up.
"""

import tempfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ibstore.analyze import estimates
from ibstore.analyze.cluster.blocks import TABLE, Divided, Marginals, counted_with, names_of
from ibstore.analyze.cluster.unit import opened
from ibstore.analyze.estimate.entropy import added
from ibstore.analyze.parts import SAME_DIGEST, Parts
from ibstore.analyze.tasks import Task
from ibstore.errors import IbstoreError

if TYPE_CHECKING:
    from ibstore.analyze.sql.counts import Counts


def add_up(divided: Divided, part: int, marginals: Marginals, *_: None) -> "dict[str, dict[int, Counts]] | None":
    """Counts of counts of a part of the keys, by patterns and epoch; None where files that are needed are gone."""
    from ibstore.analyze.sql.partial import summed

    selection = opened(divided.unit)
    parts, budget, found = selection.parts, selection.budget, {}
    for task in divided.lacking(selection):
        names = [own[part] for own in _names(divided, task, marginals)]
        if parts.existing(TABLE, names) < set(names):  # whoever else asked for this has finished it, and removed them
            return None
        with tempfile.TemporaryDirectory(prefix="ibstore-") as scratch:
            files = parts.local(TABLE, [f"{name}.parquet" for name in names], Path(scratch))
            found[task.t_key] = summed(files, counted_with(marginals, task), budget.counting, budget.threads)
    return found


def finish(divided: Divided, marginals: Marginals, *sums: "Mapping[str, Mapping[int, Counts]] | None") -> bool:
    """Keep what the tasks lack, from the sums of all parts, and remove what the blocks left; whether all was there."""
    from ibstore.analyze.sql.counts import with_marginals

    selection = opened(divided.unit)
    lacking = divided.lacking(selection)
    of_parts = [each for each in sums if each is not None and {task.t_key for task in lacking} <= each.keys()]
    if len(of_parts) < divided.parts:
        return not lacking
    for key in dict.fromkeys(task.t_key for task in lacking):
        own = [task for task in lacking if task.t_key == key]
        counted = _together([each[key] for each in of_parts])
        names = _names(divided, own[0], marginals)
        if key in divided.kept:
            _keep_patterns(key, [each[-1] for each in names], counted, selection.parts)
        for task in own:
            known = {epoch: with_marginals(task.x_key, counts, marginals) for epoch, counts in counted.items()}
            estimates.keep(task, known, divided.unit.estimators, selection.parts)
        for name in {name for each in names for name in each}:
            selection.parts.storage.remove(f"{TABLE}/{name}.parquet")
    return True


def _names(divided: Divided, task: Task, marginals: Marginals) -> list[list[str]]:
    """What is kept for a task, block by block."""
    blocks = [block for block in divided.blocks if block.segment == task.segment.key]
    return [names_of(divided, task, block, marginals) for block in blocks]


def _together(parts: "Sequence[Mapping[int, Counts]]") -> "dict[int, Counts]":
    """Counts of counts of all parts, by epoch and variable."""
    return {
        epoch: {variable: added([part[epoch][variable] for part in parts if epoch in part]) for variable in own}
        for epoch, own in {epoch: own for part in parts for epoch, own in part.items()}.items()
    }


def _keep_patterns(key: str, names: Sequence[str], counted: "Mapping[int, Counts]", parts: Parts) -> None:
    """Keep the keys of all samples, whose digests tell as many patterns apart as were counted."""
    import polars as pl

    with tempfile.TemporaryDirectory(prefix="ibstore-") as scratch:
        rows = pl.scan_parquet(parts.local(TABLE, [f"{name}.parquet" for name in names], Path(scratch)))
        digests = rows.group_by("epoch").agg(pl.col("key").n_unique()).collect()
        if dict(digests.iter_rows()) != {epoch: own["t"].distinct for epoch, own in counted.items()}:
            raise IbstoreError(SAME_DIGEST)
        whole = BytesIO()
        rows.collect().write_parquet(whole)
    parts.put("patterns", key, whole.getvalue())
