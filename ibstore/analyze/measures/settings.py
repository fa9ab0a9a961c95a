"""Settings in which runs differ, as columns of a table about runs."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from ibstore.errors import UsageError
from ibstore.store import Run

Scalar = int | float | str


@dataclass(frozen=True)
class Differing:
    """Settings and recipe options in which some runs differ.

    Parameters
    ----------
    kinds
        Types of their columns, by polars' names.
    by_run
        Their values by run; what a run does not say is absent.
    """

    kinds: Mapping[str, str]
    by_run: Mapping[str, Mapping[str, Scalar]]

    @classmethod
    def of(cls, runs: Iterable[Run], columns: Collection[str], told: Collection[str] = ()) -> Self:
        """Those of some runs, beside ``columns`` of a table, of which ``told`` are settings already.

        Raises
        ------
        UsageError
            When one is called like another column.
        """
        said = {run.name: _said(run) for run in runs}
        names = dict.fromkeys(name for own in said.values() for name in own if name not in told)
        found = [name for name in names if len({own.get(name) for own in said.values()}) > 1]
        taken = [name for name in found if name in columns]
        if taken:
            raise UsageError(f"an option is called {taken[0]!r}, as a column here is; ask of runs that have the same")
        kinds = {name: _kind(own[name] for own in said.values() if name in own) for name in found}
        by_run = {
            run: {name: str(own[name]) if kinds[name] == "String" else own[name] for name in found if name in own}
            for run, own in said.items()
        }
        return cls(kinds, by_run)


def _said(run: Run) -> dict[str, Scalar]:
    """Plain settings of a run and options of its recipe."""
    told = {**run.manifest.settings, **run.manifest.settings.get("options", {})}
    return {name: value for name, value in told.items() if isinstance(value, Scalar)}


def _kind(values: Iterable[Any]) -> str:
    """Type of a column, by polars' names."""
    kinds = {type(value) for value in values}
    return "Int64" if kinds <= {int} else "Float64" if kinds <= {int, float} else "String"
