"""How stores and runs look in a notebook: what `_repr_html_` of `Store` and `Run` gives."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from ibstore.store.format.layout import listed, size

if TYPE_CHECKING:
    from ibstore.store.reader import Listed, Run, Store

DAMAGED = "damaged: see `ibstore verify`"


def of_store(store: "Store") -> str:
    """A store's runs."""
    rows = [(found.name, *_run(found), DAMAGED if found.damage else "") for found in store.listing()]
    return table(f"store {store.location}", ("run", "epochs", "layers", "splits", "stored", ""), rows)


def _run(found: "Listed") -> tuple[str, str, str, str]:
    run = found.run
    if run is None:
        return ("–",) * 4
    splits = ", ".join(f"{split.name} ({split.samples:,})" for split in run.manifest.splits)
    layers = ", ".join(layer.name for layer in run.manifest.layers)
    return listed(run.epochs), layers, splits, size(run.stored_bytes)


def of_run(run: "Run") -> str:
    """A run's layers."""
    rows = [
        (layer.name, " × ".join(map(str, layer.shape)), layer.dtype, *map(size, run.layer_bytes(layer)))
        for layer in run.manifest.layers
    ]
    return table(f"run {run.name}: epochs {listed(run.epochs)}", ("layer", "shape", "type", "raw", "stored"), rows)


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; what it says is text, whatever is in it.

    >>> table("one", ["name"], [["<b>"]])
    '<table><caption>one</caption><tr><th>name</th></tr><tr><td>&lt;b&gt;</td></tr></table>'
    """
    lines = [("th", head), *(("td", row) for row in rows)]
    body = "".join(f"<tr>{''.join(f'<{tag}>{escape(str(cell))}</{tag}>' for cell in row)}</tr>" for tag, row in lines)
    return f"<table><caption>{escape(caption)}</caption>{body}</table>"
