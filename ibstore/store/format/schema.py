"""What format 1 writes as JSON: the store's mark, a run's manifest, a segment's commit record.

Each is a frozen dataclass that becomes the ``attributes`` of a Zarr group's ``zarr.json`` and comes back
from it unchanged.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Self

from ibstore.store.format.encoding import CODEC, Encoding
from ibstore.store.format.layout import CHUNK_BYTES

FORMAT: Final = 1

CHECKSUM: Final = "checksum"
"""Attribute of every group: SHA-256 of its other attributes as canonical JSON (sorted keys, no spaces)."""

DIGEST_CHARACTERS: Final = 32
"""Hex digits of SHA-256 that name a content: 128 bits."""

Metrics = Mapping[str, Mapping[str, float]]
"""Scalars by split, then by name: ``{"train": {"loss": 0.1}, "test": {"loss": 0.2}}``."""

Dynamics = Mapping[str, Mapping[str, Mapping[str, float | None]]]
"""What training did since the capture point before, by variant, layer and quantity; None where there is none:
``{"epoch": {"fc1": {"gradient_mean": 0.2, "snr": None}}}``."""


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A recorded layer: ``shape`` of one sample's activation (no sample axis) and NumPy ``dtype`` name."""

    name: str
    node: str
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def load(cls, document: Mapping[str, Any]) -> Self:
        """From its JSON form."""
        return cls(document["name"], document["node"], tuple(document["shape"]), document["dtype"])


@dataclass(frozen=True, slots=True)
class SplitInfo:
    """A probe set of a run: its ``name``, the digest of its ``data`` and how many ``samples`` it has."""

    name: str
    node: str
    data: str
    samples: int

    @classmethod
    def load(cls, document: Mapping[str, Any]) -> Self:
        """From its JSON form."""
        return cls(document["name"], document["node"], document["data"], document["samples"])


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about a run that is known when it begins.

    ``layers`` stand in execution order; ``settings`` are the recipe's own hyper-parameters; ``rounding`` is the
    type that activations were rounded to, None where nothing was lost. Nothing in it depends on the clock or the
    machine's name: the same training writes the same bytes.
    """

    run: str
    layers: tuple[LayerInfo, ...]
    splits: tuple[SplitInfo, ...]
    module: str = ""
    recipe: str | None = None
    seed: int | None = None
    loss: str | None = None
    optimizer: str | None = None
    mode: str = "eval"
    device: str = "cpu"
    threads: int = 1
    probe_batch: int = 1000
    rounding: str | None = None
    codec: str = CODEC
    chunk_bytes: int = CHUNK_BYTES
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def encoding(self) -> Encoding:
        """How its layers' numbers become bytes."""
        return Encoding(self.codec, self.chunk_bytes)

    def dump(self) -> dict[str, Any]:
        """JSON form: the attributes of the run's group."""
        return asdict(self)

    @classmethod
    def load(cls, document: Mapping[str, Any]) -> Self:
        """From its JSON form; fields that a later ibstore adds within this format are passed over."""
        known = {name: document[name] for name in (each.name for each in fields(cls)) if name in document}
        known["layers"] = tuple(LayerInfo.load(layer) for layer in document["layers"])
        known["splits"] = tuple(SplitInfo.load(split) for split in document["splits"])
        return cls(**known)

    def layer(self, name: str) -> LayerInfo:
        """Layer of that name; KeyError where there is none."""
        return {layer.name: layer for layer in self.layers}[name]

    def split(self, name: str) -> SplitInfo:
        """Split of that name; KeyError where there is none."""
        return {split.name: split for split in self.splits}[name]


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A committed file: its size in ``bytes`` and the first 32 hex digits of its content's SHA-256.

    No CRC-32C here: every chunk ends with its own, and the CRC-32C of such a file is the same whatever the
    chunks hold. It would name nothing.
    """

    bytes: int
    sha256: str


def file_info(content: bytes) -> FileInfo:
    """What the commit record says of a file with that content.

    >>> file_info(b"abc")
    FileInfo(bytes=3, sha256='ba7816bf8f01cfea414140de5dae2223')
    """
    return FileInfo(len(content), hashlib.sha256(content).hexdigest()[:DIGEST_CHARACTERS])


Files = Mapping[str, FileInfo]
"""Committed files by path relative to their group."""


def dump_files(files: Files) -> dict[str, list[int | str]]:
    """JSON form, in the order of the paths."""
    return {path: [files[path].bytes, files[path].sha256] for path in sorted(files)}


def load_files(document: Mapping[str, Any]) -> dict[str, FileInfo]:
    """From the JSON form."""
    return {path: FileInfo(size, checksum) for path, (size, checksum) in document.items()}


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """A segment's commit record: consecutive epochs of a run, their scalars, and every file with its sum.

    ``steps`` are the optimizer's step counts beside the epochs, None where unknown; ``dynamics`` are empty at epochs
    that have none, and stand in the JSON only where an epoch has some.
    """

    epochs: tuple[int, ...]
    steps: tuple[int | None, ...]
    metrics: tuple[Metrics, ...]
    files: Files
    dynamics: tuple[Dynamics, ...] = ()

    def __post_init__(self) -> None:
        if not self.dynamics:
            object.__setattr__(self, "dynamics", ({},) * len(self.epochs))
        if not self.epochs or {len(self.steps), len(self.metrics), len(self.dynamics)} != {len(self.epochs)}:
            raise ValueError("a segment has one epoch at least, and a step, metrics and dynamics for each")
        if not all(isinstance(epoch, int) and epoch >= 0 for epoch in self.epochs):
            raise ValueError("an epoch is an integer from 0")

    def scalars(self) -> tuple[tuple[int, ...], tuple[int | None, ...], tuple[Metrics, ...]]:
        """Epochs, steps and metrics, side by side."""
        return self.epochs, self.steps, self.metrics

    def dump(self) -> dict[str, Any]:
        """JSON form: the attributes of the segment's group."""
        document = {
            "epochs": list(self.epochs),
            "steps": list(self.steps),
            "metrics": [_dump_metrics(metrics) for metrics in self.metrics],
            "files": dump_files(self.files),
        }
        if any(self.dynamics):
            document["dynamics"] = [_dump_dynamics(dynamics) for dynamics in self.dynamics]
        return document

    @classmethod
    def load(cls, document: Mapping[str, Any]) -> Self:
        """From its JSON form."""
        return cls(
            epochs=tuple(document["epochs"]),
            steps=tuple(document["steps"]),
            metrics=tuple(_load_metrics(metrics) for metrics in document["metrics"]),
            files=load_files(document["files"]),
            dynamics=tuple(_load_dynamics(dynamics) for dynamics in document.get("dynamics", ())),
        )


def group(attributes: Mapping[str, Any]) -> bytes:
    """A Zarr v3 group's ``zarr.json`` with these attributes and, beside them, their own checksum."""
    sealed = {**attributes, CHECKSUM: _checksum(attributes)}
    document = {"zarr_format": 3, "node_type": "group", "attributes": sealed}
    return json.dumps(document, indent=1, allow_nan=False).encode()


def group_attributes(content: bytes) -> dict[str, Any]:
    """Attributes of a group's ``zarr.json``, without their checksum.

    Raises
    ------
    ValueError
        When it is no group's, or not what was written.

    Examples
    --------
    >>> group_attributes(group({"ibstore_format": 1}))
    {'ibstore_format': 1}
    """
    attributes = unchecked_attributes(content)
    if CHECKSUM in attributes and attributes.pop(CHECKSUM) != _checksum(attributes):
        raise ValueError("its attributes do not fit their checksum")
    return attributes


def unchecked_attributes(content: bytes) -> dict[str, Any]:
    """Attributes of a group's ``zarr.json`` as they stand there; ValueError when it is no group's."""
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ValueError("it holds no JSON object")  # noqa: TRY004  (bad data, not a bad argument)
    attributes = document.get("attributes", {})
    if not isinstance(attributes, dict):
        raise ValueError("its attributes are no object")  # noqa: TRY004
    return attributes


def _checksum(attributes: Mapping[str, Any]) -> str:
    canonical = json.dumps(attributes, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return file_info(canonical.encode()).sha256


def _dump_dynamics(dynamics: Dynamics) -> dict[str, dict[str, dict[str, float | str | None]]]:
    return {variant: _dump_metrics(layers) for variant, layers in dynamics.items()}


def _load_dynamics(document: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float | None]]]:
    return {
        variant: {
            layer: {name: None if value is None else float(value) for name, value in quantities.items()}
            for layer, quantities in layers.items()
        }
        for variant, layers in document.items()
    }


def _dump_metrics(metrics: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float | str | None]]:
    """JSON has no NaN and no infinity: they are written as words, as Zarr does for fill values."""
    return {
        split: {name: None if value is None else _dump_float(float(value)) for name, value in scalars.items()}
        for split, scalars in metrics.items()
    }


def _dump_float(value: float) -> float | str:
    return value if math.isfinite(value) else _WORDS[str(value)]


def _load_metrics(document: Mapping[str, Mapping[str, float | str]]) -> dict[str, dict[str, float]]:
    return {split: {name: float(value) for name, value in scalars.items()} for split, scalars in document.items()}


_WORDS: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
