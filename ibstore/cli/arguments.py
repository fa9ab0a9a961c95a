"""Arguments that several commands take, said once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ibstore.errors import UsageError

if TYPE_CHECKING:
    from ibstore.analyze import Waist

StoreArgument = Annotated[
    str, typer.Argument(metavar="STORE", help="Path or URL (s3://…, gs://…) of the store.", show_default=False)
]
RunOption = Annotated[list[str] | None, typer.Option("--run", help="Only this run; may be repeated.")]
LayerOption = Annotated[list[str] | None, typer.Option("--layer", help="Only this layer; may be repeated.")]
EpochOption = Annotated[list[int] | None, typer.Option("--epoch", help="Only this epoch; may be repeated.")]
WaistOption = Annotated[
    list[str] | None,
    typer.Option("--waist", "-w", help="A waist by name, or `NAME: x=…; conv1=…; *=…`; may be repeated."),
]
WaistsOption = Annotated[
    list[Path] | None, typer.Option("--waists", help="TOML file of waists: all of them, unless --waist chooses.")
]
BetaOption = Annotated[float, typer.Option("--beta", help="Weight of I(T;Y) in ib = I(X;T) − beta · I(T;Y).")]
UnitOption = Annotated[str, typer.Option("--unit", help="bits or nats.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


def check_lasting(store: str) -> None:
    """Return when a store outlives the command; UsageError for one in memory, which only Python can go on with."""
    if store.startswith("memory:"):
        raise UsageError(f"{store} would be gone when the command ends; give a folder or a bucket")


def chosen_waists(
    names: list[str] | None, waist_files: list[Path] | None, default: list[str]
) -> "tuple[list[str], dict[str, Waist]]":
    """Waists that are asked for, and those that files define: every one of them, unless some are named."""
    from ibstore.analyze import load_waists

    known: dict[str, Waist] = {}
    for path in waist_files or []:
        known |= load_waists(path)
    return names or list(known) or default, known
