"""Verifying a store: everything that its records say, held against what lies there."""

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibstore.errors import DamagedError
from ibstore.events import Emit, Event, ignore
from ibstore.store.format.layout import listed
from ibstore.store.format.schema import Manifest, SegmentRecord, SplitInfo
from ibstore.store.places import RECORD, Storage, open_storage
from ibstore.store.probes import ProbeReader
from ibstore.store.upkeep.check import Form, GroupCheck
from ibstore.store.upkeep.leftovers import find_leftovers
from ibstore.store.upkeep.report import Finding, Kind, ProbeReport, Report, RunReport
from ibstore.store.upkeep.survey import COPY, FoundProbeSet, FoundRun, find_probe_sets, find_runs, store_findings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAVE_OUT = f"{COPY}, or leave that epoch out with --epoch"


def verify(location: str | Path | Storage, *, deep: bool = False, emit: Emit = ignore) -> Report:
    """Check a store: records, files and their sizes, forms against the manifests, and what no record names.

    Nothing is written. A store that is being written may be verified: what is committed is checked.

    Parameters
    ----------
    location
        Of the store.
    deep
        Read every file too: checksums, that every chunk decodes, coordinates, digests of probe sets.
    emit
        Told of each segment and probe set that was checked.

    Raises
    ------
    NotAStoreError
        When nothing is there, or something else.
    NewerFormatError
        When a later ibstore wrote it.
    """
    return _Verification(open_storage(location), deep, emit).report()


class _Verification:
    """One look at a store: the records first, then the list of files, so that what a record names was there before."""

    def __init__(self, storage: Storage, deep: bool, emit: Emit) -> None:
        self.storage, self.deep, self.emit = storage, deep, emit
        self.findings = store_findings(storage)
        self.runs = find_runs(storage)
        self.probe_sets = find_probe_sets(storage)
        self.found: Mapping[str, int] = storage.files("")
        self.samples: dict[str, NDArray[np.int64]] = {}  # ids of sound probe sets by digest, when looking deep
        self.total = len(self.probe_sets) + sum(len(run.segments) for run in self.runs)
        self.done = 0

    def report(self) -> Report:
        probe_sets = tuple(self._probe_set(probe) for probe in self.probe_sets)
        runs = tuple(report for run in self.runs if run.exists and (report := self._unless_removed(run)))
        self.findings += find_leftovers(self.storage, self.runs, self.probe_sets, self.found)
        return Report(self.storage.location, self.deep, tuple(self.findings), runs, probe_sets)

    def _noted(self, findings: list[Finding], detail: str) -> bool:
        """Keep the findings of one step, tell that it is done, and whether it found nothing."""
        self.findings += findings
        self.done += 1
        self.emit(Event("verify", self.done, self.total, detail))
        return not findings

    # ---- probe sets

    def _probe_set(self, probe: FoundProbeSet) -> ProbeReport:
        users = tuple(run.name for run in self.runs if probe.digest in {split.data for split in run.splits})
        what = f"probe set {probe.digest} (of {', '.join(users) or 'no run'})"
        check = GroupCheck(self.storage, probe.key, probe.files or {}, what, COPY)
        findings = [*probe.findings, *check.findings(self.found, deep=self.deep)]
        if self.deep and not findings:
            findings += self._probe_contents(probe, check)
        return ProbeReport(probe.digest, self._noted(findings, f"probe set {probe.digest}"), users)

    def _probe_contents(self, probe: FoundProbeSet, check: GroupCheck) -> Iterator[Finding]:
        reader = ProbeReader(self.storage, probe.key, probe.files or {})
        try:
            digest, self.samples[probe.digest] = _digest(reader), reader.samples()
        except DamagedError as error:
            yield Finding(Kind.DECODE, f"{probe.key}/{RECORD}", str(error))
            return
        if digest != probe.digest:
            yield check.finding(Kind.FORM, RECORD, f"is of data whose digest is {digest}")

    # ---- runs

    def _unless_removed(self, run: FoundRun) -> RunReport | None:
        """Report of a run; None where it was removed meanwhile, and what seems damaged is only gone."""
        before = len(self.findings)
        report = self._run(run)
        if len(self.findings) > before and run.described and not self.storage.has(f"{run.key}/{RECORD}"):
            del self.findings[before:]
            return None
        return report

    def _run(self, run: FoundRun) -> RunReport:
        self.findings += chain(run.findings, self._splits(run))
        whole: set[int] = set()
        for segment in run.segments:
            what = f"run {run.name!r}, epoch {listed(list(segment.epochs))}"
            files = segment.record.files if segment.record else {}
            forms = _forms(run.manifest, segment.record)
            check = GroupCheck(
                self.storage,
                segment.key,
                files,
                what,
                LEAVE_OUT,
                run.name,
                segment.epochs,
                forms,
                self._values(run.splits, segment.record),
            )
            if self._noted(check.findings(self.found, deep=self.deep), what) and segment.record:
                whole.update(segment.epochs)
        disordered = {epoch for finding in run.findings if finding.kind is Kind.EPOCHS for epoch in finding.epochs}
        return RunReport(run.name, run.epochs, tuple(sorted(whole - disordered)), run.manifest is not None, run.live)

    def _splits(self, run: FoundRun) -> Iterator[Finding]:
        """Splits whose probe set is not there, or has another number of samples."""
        known = {probe.digest for probe in self.probe_sets}
        for split in run.splits:
            record = f"data/{split.data}/{RECORD}"
            what = f"run {run.name!r}, split {split.name!r}: {self.storage.where(record)}"
            ids = self.samples.get(split.data)
            if split.data not in known:
                message = f"{what}, its probe set, is missing; {COPY}"
                yield Finding(Kind.MISSING, record, message, run.name, split=split.name)
            elif ids is not None and len(ids) != split.samples:
                message = f"{what} has {len(ids)} samples instead of {split.samples}; {COPY}"
                yield Finding(Kind.FORM, record, message, run.name, split=split.name)

    def _values(self, splits: tuple[SplitInfo, ...], record: SegmentRecord | None) -> "dict[str, NDArray[Any]]":
        """What a segment's coordinates must hold."""
        if not self.deep or record is None:
            return {}
        import numpy as np

        epochs = {f"{split.node}/epoch": np.array(record.epochs) for split in splits}
        known = [split for split in splits if split.data in self.samples]
        return epochs | {f"{split.node}/sample": self.samples[split.data] for split in known}


def _digest(probe: ProbeReader) -> str:
    """What a stored probe set would be named after, a block at a time."""
    from ibstore.store.format.probe import probe_digest

    (shape, dtype), samples = probe.x_form(), probe.samples()
    x = dtype, (len(samples), *shape), probe.x_blocks()
    return probe_digest(x, probe.labels(), samples, probe.targets())


def _forms(manifest: Manifest | None, record: SegmentRecord | None) -> dict[str, Form]:
    """Arrays of a segment by path."""
    if manifest is None or record is None:
        return {}
    from ibstore.store.format.arrays import unit_dimensions

    epochs, forms = len(record.epochs), {}
    for split in manifest.splits:
        forms[f"{split.node}/epoch"] = Form((epochs,), "int64", ("epoch",))
        forms[f"{split.node}/sample"] = Form((split.samples,), "int64", ("sample",))
        for layer in manifest.layers:
            dimensions = ("epoch", "sample", *unit_dimensions(layer.node, len(layer.shape)))
            forms[f"{split.node}/{layer.node}"] = Form((epochs, split.samples, *layer.shape), layer.dtype, dimensions)
    return forms
