"""`ibstore waists`: the presets that ship."""

from pathlib import Path
from typing import Annotated

import typer

from ibstore.cli.output import FormatOption, OutOption, write

NAME = "waists"


def command(
    waists: Annotated[list[Path] | None, typer.Option("--waists", help="List this TOML file's waists too.")] = None,
    toml: Annotated[bool, typer.Option("--toml", help="Print the presets' TOML file, to start your own from.")] = False,
    form: FormatOption = None,
    out: OutOption = None,
) -> None:
    """List the waists that ship: a row a layer.

    Those of --waists files too.

    Example: `ibstore waists --toml > mine.toml`
    """
    import polars as pl

    from ibstore.analyze import load_waists, presets
    from ibstore.analyze.waist import preset_text

    if toml:
        typer.echo(preset_text(), nl=False)
        return
    known = presets()
    for path in waists or []:
        known |= load_waists(path)
    rows = [(name, layer, recipe) for name, waist in known.items() for layer, recipe in waist.texts.items()]
    write(pl.DataFrame(rows, schema=["waist", "layer", "recipe"], orient="row"), form, out)
