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
from ibstore.analyze.cache import BLOCKS
from ibstore.analyze.cluster.blocks import Divided, Marginals, counted_with, names_of, uncounted
from ibstore.analyze.cluster.unit import opened
from ibstore.analyze.estimate.entropy import added
from ibstore.analyze.parts import SAME_DIGEST, Parts
from ibstore.analyze.tasks import Task
from ibstore.errors import IbstoreError, StoreError, WriteError
from ibstore.events import ignore

if TYPE_CHECKING:
    from ibstore.analyze.sql.counts import Counts


def add_up(divided: Divided, part: int, marginals: Marginals, *_: None) -> "dict[str, dict[int, Counts]]":
    """Counts of counts of a part of the keys, by patterns and epoch; of what somebody else has finished, none."""
    from ibstore.analyze.sql.partial import summed

    selection = opened(divided.unit)
    parts, budget, found = selection.parts, selection.budget, {}
    for task in uncounted(divided.tasks(selection), selection.parts):
        names = [own[part] for own in _names(divided, task, marginals)]
        with tempfile.TemporaryDirectory(prefix="ibstore-") as scratch:
            try:
                files = parts.local(BLOCKS, [f"{name}.parquet" for name in names], Path(scratch))
                found[task.t_key] = summed(files, counted_with(marginals, task), budget.counting, budget.threads)
            except (FileNotFoundError, WriteError) as error:
                if uncounted([task], parts):
                    raise StoreError(
                        f"{task.what}: what blocks have counted is gone from {parts.storage.where(BLOCKS)} ({error}); "
                        "analyze again"
                    ) from None
    return found


def finish(divided: Divided, marginals: Marginals, *sums: "Mapping[str, Mapping[int, Counts]]") -> bool:
    """Keep what the tasks lack, from the sums of all parts, and remove what the blocks left."""
    from ibstore.analyze.sql.counts import with_marginals

    selection = opened(divided.unit)
    tasks, parts, estimators = divided.tasks(selection), selection.parts, divided.unit.estimators
    due = uncounted(tasks, parts)
    for key in dict.fromkeys(task.t_key for task in due):
        own = [task for task in due if task.t_key == key]
        counted = _together([each[key] for each in sums])
        if key in divided.kept:
            _keep_patterns(key, [each[-1] for each in _names(divided, own[0], marginals)], counted, parts)
        for task in own:
            known = {epoch: with_marginals(task.x_key, counts, marginals) for epoch, counts in counted.items()}
            estimates.keep(task, known, estimators, parts)
    estimates.fill(tasks, estimators, parts, ignore)
    left = {name for task in tasks for names in _names(divided, task, marginals) for name in names}
    for name in parts.existing(BLOCKS, left):
        parts.storage.remove(f"{BLOCKS}/{name}.parquet")
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
        try:
            files = parts.local(BLOCKS, [f"{name}.parquet" for name in names], Path(scratch))
            rows = pl.read_parquet(files)
        except FileNotFoundError:
            if parts.existing("patterns", [key]):  # whoever else asked for this has kept them
                return
            raise
        digests = rows.group_by("epoch").agg(pl.col("key").n_unique())
        if dict(digests.iter_rows()) != {epoch: own["t"].distinct for epoch, own in counted.items()}:
            raise IbstoreError(SAME_DIGEST)
        whole = BytesIO()
        rows.write_parquet(whole)
    parts.put("patterns", key, whole.getvalue())
