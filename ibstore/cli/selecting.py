"""What commands that ask about a store's layers share: which they are, under which waists, and what may be used."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ibstore.cli.arguments import (
    ChannelsOption,
    EpochOption,
    LayerOption,
    MemoryOption,
    RunsOption,
    StoreArgument,
    WaistOption,
    WaistsOption,
    WorkersOption,
    bytes_of,
    chosen_waists,
)
from ibstore.cli.groups import grouped
from ibstore.cli.output import ResultsOption
from ibstore.errors import UsageError

if TYPE_CHECKING:
    from ibstore.analyze import Study, Waist

DEFAULT_WAIST: Final = "thesis-6.2"
VALUES: Final = "values: *=identity | exact"
"""A waist that fits any layer: for questions that look at values, or at no waist."""

BINLESS: Final[dict[str, tuple[str, ...]]] = {
    "transmitted": ("waist", "waists", "channels"),
    "maps": ("waist", "waists", "channels"),
    "dynamics": ("waist", "waists", "channels", "unit"),
    "units": ("waist", "waists", "channels", "unit"),
    "histogram": ("waist", "waists", "channels", "unit"),
    "samples": ("waist", "waists", "channels", "unit"),
    "outcomes": ("waist", "waists", "channels", "layer", "unit"),
}
"""Measures, and pictures of them, that hang on no waist, and the options that mean nothing to each."""


@dataclass(frozen=True)
class Selected:
    """Layers of a store as the user chose them."""

    store: str
    run: list[str] | None
    layer: list[str] | None
    epoch: list[int] | None
    waist: list[str] | None
    waists: list[Path] | None
    channels: str
    results: str | None
    memory: str | None
    threads: int | None

    def study(self) -> "Study":
        """The store, opened for questions."""
        from ibstore.analyze import Study

        return Study(self.store, self.results)

    def named(self, default: list[str] | None = None) -> "tuple[list[str], dict[str, Waist]]":
        """Waists that are asked for, and those that files define."""
        return chosen_waists(self.waist, self.waists, default or [DEFAULT_WAIST])

    def check_binless(self, kind: str, **others: object) -> None:
        """Raise `UsageError` when an option was given that means nothing to a measure without a waist.

        ``others`` are options beside those of a selection; None, or what nobody gives, stands for what is not given.
        """
        given = {**vars(self), **others}
        given["channels"] = None if self.channels == "concat" else self.channels
        given["unit"] = None if others.get("unit") == "bits" else others.get("unit")
        idle = [name for name in (*BINLESS[kind], *(set(others) - {"unit"})) if given[name] is not None]
        if idle:
            raise UsageError(f"--{idle[0]} means nothing to {kind}; leave it out")

    def about(self) -> dict[str, Any]:
        """What else `Study.ask` takes of it."""
        chosen = {"runs": self.run, "layers": self.layer, "epochs": self.epoch, "channels": self.channels}
        return {**chosen, "memory": bytes_of(self.memory), "threads": self.threads}


def _shared(
    store: StoreArgument,
    run: RunsOption = None,
    layer: LayerOption = None,
    epoch: EpochOption = None,
    waist: WaistOption = None,
    waists: WaistsOption = None,
    channels: ChannelsOption = "concat",
    results: ResultsOption = None,
    memory: MemoryOption = None,
    threads: WorkersOption = None,
) -> Selected:
    return Selected(store, run, layer, epoch, waist, waists, channels, results, memory, threads)


selecting = grouped(_shared)
"""Gives a command, in place of its first parameter `Selected`, the arguments and options that make one."""
