"""How stores and runs are shown: as cells of text, and in a notebook."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from ibstore.store.format.layout import listed, size

if TYPE_CHECKING:
    from ibstore.store.reader import Listed, Run, Store

HEAD: Final = ("run", "epochs", "layers", "splits", "size", "")
DAMAGED: Final = "damaged: see `ibstore verify`"


def cells(found: "Listed") -> tuple[str, ...]:
    """What a listing says of a run, under `HEAD`."""
    note = DAMAGED if found.damage else ""
    if found.run is None:
        return (found.name, "–", "–", "–", "–", note)
    run = found.run
    layers = ", ".join(layer.name for layer in run.manifest.layers)
    splits = ", ".join(f"{split.name} ({split.samples})" for split in run.manifest.splits)
    return (run.name, listed(run.epochs), layers, splits, size(run.stored_bytes), note)


def of_store(store: "Store") -> str:
    """A store's runs, as HTML."""
    return table(f"store {store.location}", HEAD, map(cells, store.listing()))


def of_run(run: "Run") -> str:
    """A run's layers, as HTML."""
    rows = [
        (layer.name, " × ".join(map(str, layer.shape)), layer.dtype, *map(size, run.layer_bytes(layer)))
        for layer in run.manifest.layers
    ]
    return table(f"run {run.name}: epochs {listed(run.epochs)}", ("layer", "shape", "type", "raw", "stored"), rows)


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as HTML; what it says is text, whatever is in it.

    >>> table("one", ["name"], [["<b>"]])
    '<table><caption>one</caption><tr><th>name</th></tr><tr><td>&lt;b&gt;</td></tr></table>'
    """
    lines = [("th", head), *(("td", row) for row in rows)]
    body = "".join(f"<tr>{''.join(f'<{tag}>{escape(str(cell))}</{tag}>' for cell in row)}</tr>" for tag, row in lines)
    return f"<table><caption>{escape(caption)}</caption>{body}</table>"
