"""A client of the cluster that a text speaks of: one that runs, or workers on this machine."""

import asyncio
import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ibstore.errors import IbstoreError, UsageError

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

LOCAL: Final = re.compile(r"local:([1-9]\d*)")
ADDRESS: Final = re.compile(r"(tcp|tls|ws|wss|ucx|ucxx)://.+")
DEATHS: Final = 10
"""Workers of this machine that may die with a unit before it is held to be what kills them."""

SECONDS: Final = 30
"""How long a scheduler is waited for."""


@contextmanager
def connected(text: str, memory: int | None = None, gpus: Sequence[str] = ()) -> "Iterator[Client]":
    """A client of a cluster, closed after the context; workers of this machine end with it.

    Parameters
    ----------
    text
        A scheduler's address (``tcp://host:8786``), the path of a scheduler file (``….json``), or ``local:4``: four
        processes of this machine.
    memory
        Bytes that each worker of this machine may take; by default its share of what there is.
    gpus
        Those of this machine that its workers take, one each, in turn.

    Raises
    ------
    UsageError
        When the text is none of these, or distributed is not installed.
    IbstoreError
        When no scheduler answers.
    """
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError:
        raise UsageError("--scheduler needs distributed; pip install 'ibstore[cluster]'") from None
    local = LOCAL.fullmatch(text)
    if local:
        limit = "auto" if memory is None else memory
        with (
            dask.config.set({"distributed.scheduler.allowed-failures": DEATHS}),
            LocalCluster(
                n_workers=0,
                threads_per_worker=1,
                memory_limit=limit,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.ERROR,
            ) as own,
            Client(own, set_as_default=False) as client,
        ):
            _start(own, int(local[1]), gpus)
            client.wait_for_workers(int(local[1]))
            yield client
        return
    if not (ADDRESS.fullmatch(text) or text.endswith(".json")):
        raise UsageError(
            f"{text!r} is no scheduler; give its address (tcp://host:8786), its file (….json), or local:N for N "
            "processes on this machine"
        )
    where = {"scheduler_file": text} if text.endswith(".json") else {"address": text}
    try:
        asyncio.run(_greet(_address(text) if text.endswith(".json") else text))
        client = Client(**where, timeout=SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError, RuntimeError) as error:
        raise IbstoreError(
            f"no scheduler answers at {text} ({error}); start one, or give another --scheduler"
        ) from error
    with client:
        yield client


def _address(file: str) -> str:
    """What a scheduler file says."""
    if not Path(file).is_file():
        raise UsageError(f"there is no scheduler file {file}; give the one that `dask scheduler` wrote")
    try:
        return str(json.loads(Path(file).read_bytes())["address"])
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{file} is no scheduler file; give the one that `dask scheduler` wrote") from None


async def _greet(address: str) -> None:
    """Connect once: of an address that it cannot even try, a client waits a minute for its own end."""
    from distributed.comm.core import connect
    from distributed.security import Security

    comm = await connect(address, timeout=SECONDS, **Security().get_connection_args("client"))
    await comm.close()


def _start(cluster: "LocalCluster", count: int, gpus: Sequence[str]) -> None:
    """Start workers, each with a GPU of its own as dask-cuda does it: a process takes the first that it sees.

    The nanny keeps what it says of the environment, and begins one that died anew with the same.
    """
    plain = cluster.new_spec
    for number in range(count):
        env = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
        cluster.worker_spec[number] = {**plain, "options": {**plain["options"], "env": env}}
    cluster.scale(count)
