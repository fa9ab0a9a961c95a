"""Arguments that several commands take, said once."""

import re
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
RunsOption = Annotated[
    list[str] | None,
    typer.Option("--run", help="Only this run, or all that a pattern such as 'szt-*' fits; may be repeated."),
]
LayerOption = Annotated[list[str] | None, typer.Option("--layer", help="Only this layer; may be repeated.")]
EpochOption = Annotated[list[int] | None, typer.Option("--epoch", help="Only this epoch; may be repeated.")]
WaistOption = Annotated[
    list[str] | None,
    typer.Option("--waist", "-w", help="A waist by name, or `NAME: x=…; conv1=…; *=…`; may be repeated."),
]
WaistsOption = Annotated[
    list[Path] | None, typer.Option("--waists", help="TOML file of waists: all of them, unless --waist chooses.")
]
EstimatorOption = Annotated[
    list[str] | None,
    typer.Option("--estimator", "-e", help="An estimator of entropy, by default plugin; may be repeated."),
]
ChannelsOption = Annotated[
    str,
    typer.Option(
        "--channels", help="concat: a layer is one variable; mean: each channel is one, and the plane has their mean."
    ),
]
BetaOption = Annotated[float, typer.Option("--beta", help="Weight of I(T;Y) in ib = I(X;T) − beta · I(T;Y).")]
UnitOption = Annotated[str, typer.Option("--unit", help="bits or nats.")]
MemoryOption = Annotated[
    str | None,
    typer.Option("--memory", help="Memory to keep to, such as 2GiB; by default half of what is free, 8GiB at most."),
]
WorkersOption = Annotated[int | None, typer.Option("--threads", help="Threads; by default one a core.")]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        help="Spread the work over a Dask cluster: tcp://host:8786, its scheduler file, or local:N processes.",
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]


def bytes_of(text: str | None) -> int | None:
    """Bytes that a text such as ``2GiB``, ``500MB`` or ``1.5g`` speaks of.

    Raises
    ------
    UsageError
        When it cannot be read.

    Examples
    --------
    >>> bytes_of("2GiB"), bytes_of("1.5 g"), bytes_of("500MB"), bytes_of("4096")
    (2147483648, 1610612736, 500000000, 4096)
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *(?:([kmgt])(i?b?))?b?", text.strip().lower())
    if found is None:
        raise UsageError(f"{text!r} is no size; write it like 2GiB, 500MB or 4096")
    number, unit, kind = found.groups()
    return int(float(number) * (1000 if kind == "b" else 1024) ** ("kmgt".index(unit) + 1 if unit else 0))


def check_lasting(store: str) -> None:
    """Return when a store outlives the command; UsageError for one in memory, which only Python can go on with."""
    if not store:
        raise UsageError("--store is empty; give a folder, such as lab.zarr, or a bucket")
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
