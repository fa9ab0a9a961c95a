"""What a run's manifest says beside its layers: where it comes from, and what it was made with."""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from ibstore import __version__
from ibstore.errors import UsageError


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a recorded network is trained: for the manifest, so that a reader of the store knows.

    Parameters
    ----------
    recipe
        Name of the recipe.
    seed
        Seed of its weights and of the order of its data.
    loss, optimizer
        As text, such as ``cross-entropy`` and ``Adam(lr=0.002)``.
    settings
        Hyper-parameters: what JSON can hold, nothing of the clock or of a machine.

    Raises
    ------
    UsageError
        When JSON cannot hold the settings.
    """

    recipe: str | None = None
    seed: int | None = None
    loss: str | None = None
    optimizer: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            json.dumps(dict(self.settings), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(f"settings cannot be written as JSON ({error}); give numbers, texts and lists") from None


def versions() -> dict[str, str]:
    """Versions of what a recording hangs on."""
    packages = {package: version(package) for package in ("numpy", "torch", "zarr")}
    return {"python": platform.python_version(), "ibstore": __version__, **packages}
