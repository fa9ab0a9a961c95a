"""What a verification finds: frozen, in words and as JSON."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

REPORT_FORMAT: Final = 1


class Kind(StrEnum):
    """What is wrong: the first seven are damage of what was committed, the last four are leftovers."""

    RECORD = "record"
    """A group's record cannot be read, or is not what was written."""
    MISSING = "missing"
    """A committed file, or a group that others need, is not there."""
    SIZE = "size"
    """A committed file is shorter or longer than it was."""
    CHECKSUM = "checksum"
    """A committed file is not what it was."""
    DECODE = "decode"
    """A chunk cannot be decoded, or a file cannot be read at all."""
    FORM = "form"
    """Shape, type, dimensions or coordinates are not what the manifest and the record say."""
    EPOCHS = "epochs"
    """An epoch is out of order, in two segments, or in a segment of another name."""

    TORN = "torn"
    """A run, segment or probe set that was never committed."""
    TEMPORARY = "temporary"
    """A temporary file of a killed writer."""
    LEASE = "lease"
    """The lease of a dead writer."""
    FOREIGN = "foreign"
    """What ibstore does not write."""

    @property
    def is_leftover(self) -> bool:
        """Whether no commit record names such a thing, so that `repair` may remove it."""
        return self in {Kind.TORN, Kind.TEMPORARY, Kind.LEASE, Kind.FOREIGN}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Parameters
    ----------
    kind
        What is wrong with it.
    key
        Its file or folder, relative to the store.
    message
        A sentence with the thing, the fact and the next action.
    run, epochs, split, layer
        Where it belongs, as far as that is known.
    """

    kind: Kind
    key: str
    message: str
    run: str | None = None
    epochs: tuple[int, ...] = ()
    split: str | None = None
    layer: str | None = None


@dataclass(frozen=True, slots=True)
class RunReport:
    """A run and what of it is good.

    Parameters
    ----------
    run
        Its name.
    epochs, whole
        Committed epochs, as far as their records can be read, and those whose every file is whole.
    described
        Whether its manifest can be read.
    writing
        Whether another process is writing it.
    """

    run: str
    epochs: tuple[int, ...]
    whole: tuple[int, ...]
    described: bool
    writing: bool


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """A probe set: its ``digest``, whether it is ``whole``, and the ``runs`` that use it."""

    digest: str
    whole: bool
    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """All that a verification found, and what is still good."""

    store: str
    deep: bool
    findings: tuple[Finding, ...]
    runs: tuple[RunReport, ...]
    probe_sets: tuple[ProbeReport, ...]

    @property
    def damage(self) -> tuple[Finding, ...]:
        """What was committed and is not whole any more."""
        return tuple(found for found in self.findings if not found.kind.is_leftover)

    @property
    def leftovers(self) -> tuple[Finding, ...]:
        """What no commit record names."""
        return tuple(found for found in self.findings if found.kind.is_leftover)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def dump(self) -> dict[str, Any]:
        """JSON form, documented in docs/verify.md."""
        counts = {"ok": self.ok, "damage": len(self.damage), "leftovers": len(self.leftovers)}
        return {"report_format": REPORT_FORMAT, **counts, **asdict(self)}
