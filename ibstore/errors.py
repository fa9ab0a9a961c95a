"""One tree of exceptions: every message names the thing, the fact and the next action.

The command line prints the message alone, without a traceback, and ends with the class's ``exit_code``:
2 where the user's words were wrong, 1 for everything else.
"""

from typing import ClassVar


class IbstoreError(Exception):
    """Root of everything that ibstore raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(IbstoreError):
    """What was asked for cannot be meant: an unknown name, a value out of range."""

    exit_code: ClassVar[int] = 2


class StoreError(IbstoreError):
    """A store cannot be read or written."""


class NotAStoreError(StoreError):
    """The path holds no ibstore store."""


class NewerFormatError(StoreError):
    """The store was written by a later ibstore, in a format this one does not know."""


class DamagedError(StoreError):
    """Something committed is missing, truncated or altered."""


class WriteError(StoreError):
    """The store cannot be written: no space, no permission, or already closed."""


class RunExistsError(StoreError):
    """A run of that name is already in the store."""


class RunBusyError(StoreError):
    """Another process is writing that run."""


class ResumeError(UsageError):
    """A run cannot be gone on with: its settings differ, or what its training needs is not there."""


class SourceError(IbstoreError):
    """Files that are to be imported cannot be read, do not fit each other, or could run code."""


class UnknownNameError(UsageError):
    """A run, layer, epoch, waist, recipe or data set of that name does not exist."""


class CaptureError(IbstoreError):
    """A network cannot be recorded as asked."""


class DatasetError(CaptureError):
    """A data set is neither in place nor to be had."""


class WaistError(UsageError):
    """A waist's text cannot be parsed, or does not fit the layer it is meant for."""


class ValuesError(IbstoreError):
    """Stored values cannot be discretized as asked: NaN, or labels that are no integers."""


class QueryError(UsageError):
    """A query that is no single SELECT, or that DuckDB refuses."""
