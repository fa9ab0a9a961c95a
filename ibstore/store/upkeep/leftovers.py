"""What lies in a store and is named by no commit record: what `repair` may remove, and nothing else.

Whatever might be named by a record that cannot be read is no leftover, and nothing below a run that is being
written is.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ibstore.store.format.layout import size
from ibstore.store.format.names import SEGMENT, unescape
from ibstore.store.format.schema import DIGEST_CHARACTERS
from ibstore.store.places import RECORD, Storage
from ibstore.store.places.disk import PARTIAL
from ibstore.store.places.lease import LEASE, holder_of
from ibstore.store.upkeep.report import Finding, Kind
from ibstore.store.upkeep.survey import FoundProbeSet, FoundRun, is_node

_DIGEST: Final = re.compile(rf"[0-9a-f]{{{DIGEST_CHARACTERS}}}")


def unnamed(
    found: Iterable[str], named: Iterable[str], kept: Iterable[str] = (), above: Iterable[str] = ()
) -> list[str]:
    """What is found and not named, as few keys as possible: a folder for all below it, where nothing in it is named.

    Parameters
    ----------
    found
        Files and folders that are there.
    named
        Files that belong there.
    kept
        Folders whose every file belongs there.
    above
        Folders that stay, whatever is in them.

    Examples
    --------
    >>> unnamed(["a/b/1", "a/b/2", "a/c", "d"], ["a/c"], ["d"])
    ['a/b']
    """
    named, kept = set(named), set(kept)
    ancestors = {*above} | {folder for key in (*named, *kept) for folder in _prefixes(key)[:-1]}
    tops: set[str] = set()
    for key in found:
        prefixes = _prefixes(key)
        if key not in named and kept.isdisjoint(prefixes):
            top = next((prefix for prefix in prefixes if prefix not in ancestors), None)
            if top is not None:
                tops.add(top)
    return sorted(tops)


def find_leftovers(
    storage: Storage, runs: Sequence[FoundRun], probe_sets: Sequence[FoundProbeSet], found: Mapping[str, int]
) -> list[Finding]:
    """All leftovers; below ``data`` none while any run is being written, whose probe set may not be complete yet."""
    live = {run.key for run in runs if run.live or holder_of(storage, f"{run.key}/{LEASE}")}
    below = [finding for run in runs if run.key not in live for finding in run_leftovers(storage, run, found)]
    return [*below, *shared_leftovers(storage, probe_sets, found, ["data"] if live else [])]


def run_leftovers(storage: Storage, run: FoundRun, found: Mapping[str, int]) -> list[Finding]:
    """Leftovers below a run that nobody writes; ``found`` are the store's files, or only the run's."""
    below = [key for key in found if key.startswith(f"{run.key}/")]
    named = [key for segment in run.segments if segment.record for key in _files(segment.key, segment.record.files)]
    if run.exists:
        named += [f"{run.key}/{RECORD}", f"{run.key}/segments/{RECORD}"]
    kept = [segment.key for segment in run.segments if segment.record is None]
    tops = unnamed([*below, *run.folders, *([] if run.exists else [run.key])], named, kept, ["runs"])
    return [_finding(storage, key, found) for key in tops]


def shared_leftovers(
    storage: Storage, probe_sets: Iterable[FoundProbeSet], found: Mapping[str, int], kept: Iterable[str] = ()
) -> list[Finding]:
    """Leftovers that lie below no run's folder and none of the folders ``kept``."""
    named = [RECORD, f"data/{RECORD}", f"runs/{RECORD}"]
    kept = [*kept, *(f"runs/{node}" for node in _run_nodes(storage, found))]
    for probe in probe_sets:
        if probe.files is None:
            kept.append(probe.key)
        else:
            named += _files(probe.key, probe.files)
    folders = [f"{key}/{name}".lstrip("/") for key in ("", "data", "runs") for name in storage.folders(key)]
    return [_finding(storage, key, found) for key in unnamed([*found, *folders], named, kept)]


def _run_nodes(storage: Storage, found: Iterable[str]) -> set[str]:
    """Folders that may be runs, those too that have come or gone since the files were listed."""
    below = {key.split("/")[1] for key in found if key.startswith("runs/") and key.count("/") > 1}
    return {node for node in (*below, *storage.folders("runs")) if is_node(node)}


def _files(key: str, files: Iterable[str]) -> list[str]:
    return [f"{key}/{RECORD}", *(f"{key}/{path}" for path in files)]


def _prefixes(key: str) -> list[str]:
    parts = key.split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _finding(storage: Storage, key: str, found: Mapping[str, int]) -> Finding:
    kind, what = _kind(key, is_file=key in found)
    sizes = [bytes_ for path, bytes_ in found.items() if path == key or path.startswith(f"{key}/")]
    content = f" ({len(sizes)} file{'s' if len(sizes) != 1 else ''}, {size(sum(sizes))})"
    message = f"{storage.where(key)}{content} is {what}; `ibstore repair {storage.location}` removes it"
    run, epochs = _place(key, is_file=key in found)
    return Finding(kind, key, message, run, epochs)


def _kind(key: str, *, is_file: bool) -> tuple[Kind, str]:
    """What a leftover is, by its name: a stranger's, unless it is one that ibstore gives."""
    if key.endswith(PARTIAL):
        return Kind.TEMPORARY, "a temporary file of a writer that was killed"
    match key.split("/"):
        case ["runs", node, name] if name == LEASE and is_node(node):
            return Kind.LEASE, "the lease of a writer that is dead"
        case ["runs", node] if is_node(node) and not is_file:
            return Kind.TORN, "a run that was never committed"
        case ["runs", _, "segments", name] if SEGMENT.fullmatch(name) and not is_file:
            return Kind.TORN, "a segment that was never committed"
        case ["data", digest] if _DIGEST.fullmatch(digest) and not is_file:
            return Kind.TORN, "a probe set that was never committed"
    return Kind.FOREIGN, "nothing that ibstore writes"


def _place(key: str, *, is_file: bool) -> tuple[str | None, tuple[int, ...]]:
    """Run and epochs that a leftover belongs to."""
    parts = key.split("/")
    if parts[0] != "runs" or len(parts) == 1 or (len(parts) == 2 and is_file) or not is_node(parts[1]):  # noqa: PLR2004
        return None, ()
    match parts[2:]:
        case ["segments", name, *_] if SEGMENT.fullmatch(name):
            return unescape(parts[1]), (int(name),)
    return unescape(parts[1]), ()
