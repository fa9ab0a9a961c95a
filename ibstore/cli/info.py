"""`ibstore info`: what a store or one of its runs holds."""

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ibstore.cli.arguments import StoreArgument
from ibstore.errors import DamagedError
from ibstore.store.format.layout import size

if TYPE_CHECKING:
    from ibstore.store.reader import Run

NAME = "info"


def command(
    store: StoreArgument,
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run; without it, all of them.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The manifest and sizes as JSON.")] = False,
) -> None:
    """Show a run's layers, epochs, sizes and manifest.

    Sizes are raw and stored.
    What is damaged is told after the rest, and exit is 1.

    Example: `ibstore info lab.zarr mnist-cnn-seed0`
    """
    from ibstore.store.reader import Store

    opened = Store.open(store)
    listing = [opened.listed(run)] if run else opened.listing()
    runs = [each.run for each in listing if each.run]
    if as_json:
        sys.stdout.write(json.dumps([_record(found) for found in runs], indent=2, ensure_ascii=False) + "\n")
    else:
        count = len(opened.run_names())
        sys.stdout.write(f"{store}: store format 1, {count} run{'s' if count != 1 else ''}\n")
        for found in runs:
            sys.stdout.write(_text(found))
    damage = [error for each in listing for error in each.damage]
    if damage:
        raise DamagedError("; ".join(map(str, damage)))


def _record(run: "Run") -> dict[str, object]:
    sizes = {"raw_bytes": run.raw_bytes, "stored_bytes": run.stored_bytes}
    return {"epochs": run.epochs, **sizes, "manifest": run.manifest.dump()}


def _text(run: "Run") -> str:
    from ibstore.store.format.layout import listed

    manifest = run.manifest
    ratio = f", {run.raw_bytes / run.stored_bytes:.2f} × smaller" if run.stored_bytes else ""
    facts = {
        "epochs": listed(run.epochs),
        "size": f"{size(run.raw_bytes)} raw, {size(run.stored_bytes)} stored{ratio}",
        "recipe": manifest.recipe,
        "seed": manifest.seed,
        "loss": manifest.loss,
        "optimizer": manifest.optimizer,
        "device": f"{manifest.device}, {manifest.threads} threads",
        "probe": f"batches of {manifest.probe_batch}, {manifest.mode} mode",
        "encoding": f"{manifest.codec}, chunks of {size(manifest.chunk_bytes)}",
        "rounded to": manifest.rounding,
        "settings": _pairs(manifest.settings),
        "versions": ", ".join(f"{name} {value}" for name, value in manifest.versions.items()),
    }
    lines = [f"\nrun {run.name}"]
    lines += [f"  {name:<10} {value}" for name, value in facts.items() if value not in {None, ""}]
    lines += [f"  split      {split.name}: {split.samples} samples, data {split.data}" for split in manifest.splits]
    for layer in manifest.layers:
        raw, stored = run.layer_bytes(layer)
        shape = "×".join(map(str, layer.shape)) or "scalar"
        lines.append(f"  layer      {layer.name}: {shape} {layer.dtype}, {size(raw)} raw, {size(stored)} stored")
    lines += ["  module", *(f"    {line}" for line in manifest.module.splitlines())]
    return "\n".join(lines) + "\n"


def _pairs(settings: Mapping[str, Any]) -> str:
    """Settings by name, those of one thing in brackets: ``lr=0.1, stopping=(tol=0.1, every=10)``."""
    told = {name: f"({_pairs(value)})" if isinstance(value, Mapping) else value for name, value in settings.items()}
    return ", ".join(f"{name}={value}" for name, value in told.items())
