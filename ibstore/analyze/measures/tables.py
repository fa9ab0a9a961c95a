"""Tables of measures: rows of plain values as polars frames, whose columns have one type each wherever they stand."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze.plane import UNITS

if TYPE_CHECKING:
    import polars as pl

WHOLE: Final = (
    *("epoch", "n", "runs", "size", "permutations", "units", "constant", "below", "above"),
    *(
        "n_fit",
        "batches",
        "number",
        "other_number",
        "map",
        "label",
        "classes",
        "seed",
        "sample",
        "row",
        "column",
        "step",
        "hidden_layers",
        "loss_kink",
        "snr_drop",
        "i_xt_turn",
    ),
    *("loss_kink_step", "snr_drop_step", "i_xt_turn_step"),
)
TEXTS: Final = (
    *("run", "split", "layer", "channel", "waist", "edges", "estimator", "quantity", "unit"),
    *("other", "other_channel", "other_edges", "method", "form", "variant", "target", "stage"),
)
KINDS: Final = {**dict.fromkeys(WHOLE, "Int64"), **dict.fromkeys(TEXTS, "String"), "saturated": "Boolean"}
"""Types of columns by polars' names; all others are Float64."""


def frame(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    scaled: Sequence[str] = (),
    unit: str = "bits",
    kinds: Mapping[str, str] = KINDS,
) -> "pl.DataFrame":
    """The rows' ``columns``; numbers that are no whole ones are float64, and NaN is null.

    Those of ``scaled`` are in bits and become what the unit says. ``kinds`` are types of columns, as in `KINDS`.
    """
    import polars as pl

    schema = {name: getattr(pl, kinds.get(name, "Float64")) for name in columns}
    found = pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)
    return found.with_columns(pl.selectors.float().fill_nan(None)).with_columns(pl.col(scaled) * UNITS[unit])
