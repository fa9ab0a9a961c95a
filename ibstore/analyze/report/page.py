"""A report as one HTML file that needs nothing else: no network, no folder beside it.

Its charts are Vega-Lite's and its tables DataTables', whose programs lie in the page; what is ours in `page.js` passes
the choosers' state to them. The page forbids itself all connections by its own Content-Security-Policy.
"""

import json
import math
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from ibstore.analyze.measures.doctor import TRUST
from ibstore.analyze.plots.style import COLOURS

if TYPE_CHECKING:
    import polars as pl

    from ibstore.analyze.report.contents import Contents

DIGITS: Final = 7
"""Of numbers in the page."""

DARK: Final = ("#4AA3DF", "#F0793A", "#2BC197", "#E29AC4", "#F2B53D", "#8CCBF2", "#A8A8A8", "#D8C93A")
"""The house's colours, brighter, for a dark ground."""

CAPTIONS: Final = {
    "plane": "Information plane",
    "epochs": "Losses and scores",
    "dynamics": "Gradients and weights",
    "layers": "Layers",
}
"""Tables that stand at the page's end; the runs stand at its beginning."""


def page(contents: "Contents", commands: Sequence[str] = ()) -> str:
    """HTML of a report.

    Parameters
    ----------
    contents
        What it says.
    commands
        Command lines that make all of it again.
    """
    import itables
    import jinja2
    import vl_convert

    from ibstore.analyze.report.charts import charts

    bundle = resources.files(itables) / "html"
    drawn = charts(contents)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(_asset("page.html.j2"))
    return template.render(
        page=contents,
        drawn=drawn,
        captions=CAPTIONS,
        colours=_colours(contents.layers),
        commands=commands,
        trust=TRUST,
        payload=_json({"tables": {name: _columns(table) for name, table in contents.tables.items()}, "charts": drawn}),
        palettes=_json({"light": COLOURS, "dark": DARK}),
        style=_asset("page.css"),
        script=_asset("page.js"),
        vega=vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
        datatables=(bundle / "dt_bundle.js").read_text(encoding="utf-8"),
        datatables_style=(bundle / "dt_bundle.css").read_text(encoding="utf-8"),
    )


def _asset(name: str) -> str:
    return (resources.files("ibstore.analyze.report") / "assets" / name).read_text(encoding="utf-8")


def _colours(layers: Sequence[str]) -> list[tuple[str, int]]:
    """Layers with the number of their colour: more layers than colours begin anew."""
    return [(layer, number % len(COLOURS)) for number, layer in enumerate(layers)]


def _columns(table: "pl.DataFrame") -> dict[str, list[Any]]:
    """A table as JSON holds it, column by column: numbers with `DIGITS`, None where there is none."""
    return {name: [_plain(value) for value in table[name].to_list()] for name in table.columns}


def _plain(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _json(content: Any) -> str:
    """JSON that can stand within a script element, whatever it says."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
