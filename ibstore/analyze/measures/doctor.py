"""Which rows of an information plane can be trusted, in plain words, and what to change."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze.estimate.density import is_density
from ibstore.analyze.estimate.joint import information_between
from ibstore.analyze.estimate.resample import learning_curve, permutation_null
from ibstore.analyze.keys import NAMES, Keyed
from ibstore.analyze.measures.binning import ranges
from ibstore.analyze.measures.findings import FINDINGS, NOTE, VERDICTS, Evidence
from ibstore.analyze.tasks import WHOLE
from ibstore.events import Event
from ibstore.store.format.layout import listed

if TYPE_CHECKING:
    import polars as pl

    from ibstore.analyze.selection import Selection

CORRECTED: Final = "chao_wang_jost"
ESTIMATORS: Final = ("plugin", "miller_madow", CORRECTED)

PERMUTATIONS: Final = 40
PARTS: Final = 4
"""Halves of the samples."""

COLUMNS: Final = (*NAMES, "n", "verdict", "finding", "says", "advice")

TRUST: Final = {"no": "cannot be trusted", "caution": "with caution", "yes": "can be trusted"}


def doctor(selection: "Selection", estimators: Sequence[str] = ()) -> "pl.DataFrame":
    """Findings about each layer and epoch by the plug-in: a row a finding, or one without where there is none.

    Of further ``estimators`` it is told which leave their bounds, and which are saturated. Columns run, split, epoch,
    layer, channel, waist, edges, n; verdict on the layer at that epoch ("no": it cannot be trusted,
    "caution", "yes"); finding, what it says and advice.
    """
    import polars as pl

    rows = [
        {**names, "n": evidence["n"], **found}
        for names, evidence in _evidence(selection, dict.fromkeys((*ESTIMATORS, *estimators)))
        for found in _found(evidence)
    ]
    schema = {name: pl.Int64 if name in ("epoch", "n") else pl.String for name in COLUMNS}
    return pl.DataFrame(rows, schema=schema)


def _found(evidence: Evidence) -> list[dict[str, str | None]]:
    """What is found, each with the verdict on the whole: the gravest of them."""
    checked = [(each, each.check(evidence)) for each in FINDINGS]
    found = [(each, says) for each, says in checked if says is not None]
    verdict = min((each.verdict for each, _ in found), key=VERDICTS.index, default=NOTE)
    if not found:
        return [{"verdict": verdict, "finding": None, "says": None, "advice": None}]
    return [{"verdict": verdict, "finding": each.name, "says": says, "advice": each.advice} for each, says in found]


def _evidence(selection: "Selection", estimators: Iterable[str]) -> Iterator[tuple[dict[str, Any], Evidence]]:
    """What is known of each layer and epoch."""
    import polars as pl

    plane = selection.plane(list(estimators)).filter(pl.col("channel") != "mean")
    spread = {_place(row): row for row in ranges(selection).iter_rows(named=True)}
    rows: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in plane.iter_rows(named=True):
        rows.setdefault(_place(row), {})[row["estimator"]] = row
    epochs = plane.group_by("run").agg(pl.col("epoch").n_unique())
    many = dict(epochs.iter_rows())
    for done, keys in enumerate(selection.keys()):
        selection.emit(Event("examine", done, len(rows), f"{keys.task.what}, epoch {keys.epoch}"))
        place = _place(keys.names)
        own = {**rows[place]["plugin"], **spread[place], "epochs": many[place[0]]}
        yield dict(keys.names), own | _corrected(rows[place]) | _measured(keys)
    selection.emit(Event("examine", len(rows), len(rows)))


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in NAMES if name != "edges")  # what looks at values has none


def _corrected(by: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What other estimators say, and which of them went furthest beyond its bounds."""
    beyond = [
        (abs(row[f"{name}_raw"] - row[name]), f"{label} by {estimator}")
        for estimator, row in by.items()
        for name, label in (("i_xt", "I(X;T)"), ("i_ty", "I(T;Y)"))
        if row[name] is not None
    ]
    most, whose = max(beyond)
    full = [estimator for estimator, row in by.items() if is_density(estimator) and row["saturated"]]
    own = {"corrected_h_t": by[CORRECTED]["h_t"], "corrected_by": CORRECTED}
    return own | {"clipped_most": most, "clipped_by": whose, "saturated_by": ", ".join(full)}


def _measured(keys: Keyed) -> dict[str, Any]:
    """The self-test, what is chance, and whether estimates still move."""
    own: dict[str, Any] = {"i_tt": information_between(keys.t_codes, keys.t_codes)}
    own |= {"p_value": None, "null_mean": None, "change_h_t": None, "change_i_ty": None}
    samples = len(keys.t)
    if keys.y is not None:
        null = permutation_null(keys.t_codes, keys.y, permutations=PERMUTATIONS)
        own |= {"p_value": null.p_value, "null_mean": null.mean}
    if samples > PARTS:
        wanted = [name for name in ("h_t", "i_ty") if name in keys.joint.quantities]
        curves = learning_curve(keys.joint, quantities=wanted, sizes=(samples // 2, samples), repeats=PARTS)
        own |= {f"change_{name}": curve.change for name, curve in curves.items()}
    return own


@dataclass(frozen=True)
class Remark:
    """A finding on a layer: at which epochs, what it says of the last of them, and what to change."""

    name: str
    at: str
    says: str
    advice: str


@dataclass(frozen=True)
class Opinion:
    """What is to be said of a layer: each verdict with its epochs, then what was found; the gravest first."""

    layer: str
    verdicts: Sequence[tuple[str, str]]
    remarks: Sequence[Remark]


def opinions(table: "pl.DataFrame") -> "Iterator[tuple[dict[str, Any], list[Opinion]]]":
    """A doctor's table layer by layer, for each run, split and waist, with their names and ``n``."""
    keys = ("run", "split", "waist")
    for place, own in table.group_by(keys, maintain_order=True):
        layers = own.group_by("layer", "channel", maintain_order=True)
        names = dict(zip(keys, place, strict=True)) | {"n": own["n"][0]}
        yield names, [_opinion(str(layer), str(channel), rows) for (layer, channel), rows in layers]


def _opinion(layer: str, channel: str, rows: "pl.DataFrame") -> Opinion:
    every = _epochs(rows)

    def at(own: "pl.DataFrame") -> str:
        return "every epoch" if _epochs(own) == every and len(every) > 1 else f"epoch {listed(_epochs(own))}"

    verdicts = [(verdict, rows.filter(verdict=verdict)) for verdict in VERDICTS]
    found = [(each, rows.filter(finding=each.name)) for each in FINDINGS]
    return Opinion(
        layer if channel == WHOLE else f"{layer}, channel {channel}",
        [(verdict, at(own)) for verdict, own in verdicts if len(own)],
        [Remark(each.name.replace("_", " "), at(own), own["says"][-1], each.advice) for each, own in found if len(own)],
    )


def words(table: "pl.DataFrame") -> str:
    """A doctor's table in plain words: layer by layer, which epochs have what, and what to do."""
    lines: list[str] = []
    for names, layers in opinions(table):
        samples = names.pop("n")
        lines += ["", " · ".join(f"{name} {value}" for name, value in names.items()) + f" · {samples:,} samples"]
        for each in layers:
            lines += ["", *(f"{each.layer}: {TRUST[verdict]} at {at}" for verdict, at in each.verdicts)]
            for remark in each.remarks:
                lines += [f"  {remark.name}, {remark.at}: {remark.says}", f"    → {remark.advice}"]
    return "\n".join(lines[1:]) + "\n"


def _epochs(rows: "pl.DataFrame") -> list[int]:
    return list(rows["epoch"].unique().sort())
