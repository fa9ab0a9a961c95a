"""Pictures of tables, by kind: `ibstore.plots`. matplotlib is imported where a picture is drawn.

A kind is called with a table, and draws its one panel on axes of yours (``ax=``) or on a figure of its own. A table
that makes several panels (waists, runs) is drawn whole by `figure`, and to a file by `draw`.

Examples
--------
>>> table = ibstore.open("lab.zarr").ask("thesis-6.2").plane()  # doctest: +SKIP
>>> axes = ibstore.plots.plane(table)  # doctest: +SKIP
>>> axes.figure.savefig("plane.pdf")  # doctest: +SKIP
"""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze.plots import estimates, limits, planes, stochastic, training, views
from ibstore.analyze.plots import outcomes as trainings
from ibstore.analyze.plots.animation import animate
from ibstore.analyze.plots.page import Kind, alone
from ibstore.analyze.plots.style import style
from ibstore.errors import UsageError
from ibstore.store.places.disk import save

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

KINDS: Final[dict[str, Kind]] = {
    "plane": planes.plane,
    "curves": planes.curves,
    "extended": planes.extended,
    "dynamics": training.dynamics,
    "diagram": estimates.diagram,
    "convergence": estimates.convergence,
    "beta": limits.beta,
    "bound": limits.bound,
    "units": views.units,
    "histogram": views.histogram,
    "samples": views.samples,
    "waist": views.waist,
    "dependence": views.dependence,
    "outcomes": trainings.outcomes,
    "transmitted": stochastic.transmitted,
    "correlation": stochastic.correlation,
    "maps": stochastic.maps,
}

MEASURES: Final = {
    **{name: name for name in ("dynamics", "diagram", "convergence", "units", "histogram", "samples")},
    **{name: name for name in ("extended", "outcomes", "transmitted", "correlation", "maps")},
    "beta": "betas",
    "bound": "bounds",
    "waist": "stages",
    "dependence": "neighbours",
}
"""Measure whose table a kind draws; the others draw the information plane."""

__all__ = [
    "KINDS",
    "MEASURES",
    "animate",
    "beta",
    "bound",
    "check",
    "convergence",
    "correlation",
    "curves",
    "dependence",
    "diagram",
    "draw",
    "dynamics",
    "extended",
    "figure",
    "histogram",
    "maps",
    "outcomes",
    "plane",
    "samples",
    "transmitted",
    "units",
    "waist",
]

plane = alone(planes.plane)
curves = alone(planes.curves)
extended = alone(planes.extended)
dynamics = alone(training.dynamics)
diagram = alone(estimates.diagram)
convergence = alone(estimates.convergence)
beta = alone(limits.beta)
bound = alone(limits.bound)
units = alone(views.units)
histogram = alone(views.histogram)
samples = alone(views.samples)
waist = alone(views.waist)
dependence = alone(views.dependence)
outcomes = alone(trainings.outcomes)
transmitted = alone(stochastic.transmitted)
correlation = alone(stochastic.correlation)
maps = alone(stochastic.maps)


def check(kind: str, out: Path) -> None:
    """Return when there is such a kind of picture and such a format of file; raises `UsageError`."""
    _known(kind)
    if out.suffix.lower() not in {".png", ".svg", ".pdf"}:
        raise UsageError(f"{out} has no known picture format; end the name in .png, .svg or .pdf")


def _known(kind: str) -> Kind:
    if kind not in KINDS:
        raise UsageError(f"there is no picture {kind!r}; there are {', '.join(KINDS)}")
    return KINDS[kind]


def figure(kind: str, table: "pl.DataFrame", **options: Any) -> "Figure":
    """All panels of a table on a figure of their own; ``options`` are those of the kind.

    Raises
    ------
    UsageError
        When there is no such kind, or the table has not what the picture shows.
    """
    return _known(kind)(table, **options).figure()


def draw(kind: str, table: "pl.DataFrame", out: Path, **options: Any) -> None:
    """Draw a table as a picture of ``kind`` to ``out``, whose suffix says the format; ``options`` are the kind's.

    Raises
    ------
    UsageError
        When there is no such kind or no such format, or the table has not what the picture shows.
    WriteError
        When the file cannot be written.
    """
    check(kind, out)
    drawn, content = figure(kind, table, **options), BytesIO()
    with style():
        drawn.savefig(content, format=out.suffix[1:].lower())
    save(out, content.getvalue(), "-o")
