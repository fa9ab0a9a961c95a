"""Tables of measures: rows of plain values as polars frames, whose columns have one type each wherever they stand."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze.plane import UNITS

if TYPE_CHECKING:
    import polars as pl

WHOLE: Final = frozenset(
    {"epoch", "n", "runs", "size", "permutations", "units", "constant", "below", "above"},
)
TEXTS: Final = frozenset(
    {"run", "split", "layer", "channel", "waist", "estimator", "quantity", "unit", "other", "other_channel"}
    | {"method", "form", "edges"}
)


def frame(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], scaled: Sequence[str] = (), unit: str = "bits"
) -> "pl.DataFrame":
    """The rows' ``columns``; numbers that are no whole ones are float64, and NaN is null.

    Those of ``scaled`` are in bits and become what the unit says.
    """
    import polars as pl

    schema = {name: pl.Int64 if name in WHOLE else pl.String if name in TEXTS else pl.Float64 for name in columns}
    found = pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)
    return found.with_columns(pl.selectors.float().fill_nan(None)).with_columns(pl.col(scaled) * UNITS[unit])
