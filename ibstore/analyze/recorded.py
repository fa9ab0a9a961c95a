"""Tables of what the store itself records of its runs: settings, layers, metrics, labels. Columns are public API."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ibstore.store import Run
from ibstore.store.format.schema import Metrics


def runs_table(runs: Sequence[Run]) -> pl.DataFrame:
    """One row a run."""
    import json

    text, whole = pl.String(), pl.Int64()
    names = {"run": text, "recipe": text, "seed": whole, "loss": text, "optimizer": text, "device": text}
    schema = pl.Schema({**names, "threads": whole, "probe_batch": whole, "epochs": whole, "settings": text})
    rows = (
        {name: getattr(run.manifest, name) for name in (*names, "threads", "probe_batch")}
        | {"epochs": len(run.epochs), "settings": json.dumps(dict(run.manifest.settings))}
        for run in runs
    )
    return _table(rows, schema)


def layers_table(runs: Sequence[Run]) -> pl.DataFrame:
    """One row a run and layer, ``position`` in execution order, ``shape`` of one sample."""
    schema = pl.Schema(
        {
            "run": pl.String(),
            "layer": pl.String(),
            "position": pl.Int64(),
            "shape": pl.List(pl.Int64()),
            "units": pl.Int64(),
            "dtype": pl.String(),
        }
    )
    rows = (
        {
            "run": run.name,
            "layer": layer.name,
            "position": position,
            "shape": list(layer.shape),
            "units": int(np.prod(layer.shape)),
            "dtype": layer.dtype,
        }
        for run in runs
        for position, layer in enumerate(run.manifest.layers)
    )
    return _table(rows, schema)


def epochs_table(runs: Sequence[Run]) -> pl.DataFrame:
    """One row a run, epoch and split with metrics; a column for each scalar that any run recorded."""
    rows = [
        {**scalars, "run": run.name, "epoch": epoch, "step": step, "split": split}
        for run in runs
        for segment in run.segments
        for epoch, step, metrics in zip(*segment.record.scalars(), strict=True)
        for split, scalars in _by_split(run, metrics).items()
    ]
    keys = {"run": pl.String(), "epoch": pl.Int64(), "step": pl.Int64(), "split": pl.String()}
    metric_names = dict.fromkeys(["loss", "accuracy", *(name for row in rows for name in row if name not in keys)])
    return _table(rows, pl.Schema({**keys, **dict.fromkeys(metric_names, pl.Float64())}))


def _by_split(run: Run, metrics: Metrics) -> dict[str, Mapping[str, float]]:
    """Scalars of every recorded split, if only none, and of every other that has some."""
    return {**{split.name: {} for split in run.manifest.splits}, **metrics}


def samples_table(runs: Sequence[Run]) -> pl.DataFrame:
    """One row a run, split and sample."""
    schema = pl.Schema({"run": pl.String(), "split": pl.String(), "sample": pl.Int64(), "label": pl.Int64()})
    frames = [schema.to_frame()]
    for run in runs:
        for split in run.manifest.splits:
            probe = run.probe(split)
            columns = {"sample": probe.samples(), "label": probe.classes()}
            frame = pl.DataFrame(columns, schema_overrides={"label": pl.Int64})
            frames.append(frame.select(run=pl.lit(run.name), split=pl.lit(split.name), sample="sample", label="label"))
    return pl.concat(frames)


def _table(rows: Iterable[dict[str, Any]], schema: pl.Schema) -> pl.DataFrame:
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)
