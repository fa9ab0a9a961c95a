"""A cluster that analyzes a large store, simulated task by task: what `benchmarks.scale` asks.

Workers take tasks in the order in which they were handed out, but those of layers that are begun first; a scheduler
needs its time for each, nodes share their network, take longer now and then, and fail. Nothing here knows ibstore: a
layer of an epoch is so many blocks, which are passed over a few times, and sums at the end.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import Final

HOUR: Final = 3600.0


@dataclass(frozen=True)
class Rates:
    """What one core does in a second, and the scheduler in one task.

    Parameters
    ----------
    decode, fit, count
        Raw bytes: read and decompressed; looked through for quantiles; narrowed and counted, of all waists together.
    merge
        Rows of blocks' counts that are added up, of all waists together.
    stored
        Stored bytes by raw ones.
    row
        Bytes of a kept row of a block's counts, of all waists together.
    scheduler
        Seconds of the scheduler for each task.
    """

    decode: float
    fit: float
    count: float
    merge: float
    stored: float
    row: float
    scheduler: float


@dataclass(frozen=True)
class Nodes:
    """The cluster: ``network`` is bytes a second of one node, ``failures`` how often an hour each ends."""

    count: int
    cores: int
    network: float
    failures: float = 1 / 500
    spread: float = 0.15

    @property
    def workers(self) -> int:
        """A worker for each core."""
        return self.count * self.cores


@dataclass(frozen=True)
class Layer:
    """A layer of an epoch: samples, raw bytes, and in how many blocks; some passes to fit come before the last one.

    What a pass to fit finds of a block is in ``pieces``, a small task each; ``parts`` is how many sums there are.
    """

    samples: int
    bytes: int
    blocks: int
    fits: int = 2
    pieces: int = 1
    parts: int = 1


@dataclass
class Simulated:
    """What was seen: seconds in all, of workers at work, lost with nodes, and of the scheduler."""

    seconds: float = 0.0
    worked: float = 0.0
    lost: float = 0.0
    scheduler: float = 0.0
    tasks: int = 0


@dataclass(frozen=True)
class Stage:
    """Tasks that may begin together: how many, seconds of each, and what the scheduler takes for it."""

    tasks: int
    seconds: float
    scheduler: float


def stages(layer: Layer, rates: Rates, nodes: Nodes) -> list[Stage]:
    """What is done to a layer; reading waits for the node's share of the network, then decodes."""
    block, one = layer.bytes / layer.blocks, rates.scheduler
    share = nodes.network / nodes.cores
    read = block * rates.stored / share + block / rates.decode
    kept = layer.samples / layer.blocks * rates.row
    rows = layer.samples / layer.parts
    fitting = [Stage(layer.blocks, read + block / rates.fit, one * (1 + layer.pieces))] * layer.fits
    counting = Stage(layer.blocks, read + block / rates.count + kept / share, one)
    return [*fitting, counting, Stage(layer.parts, rows / rates.merge + rows * rates.row / share, one)]


def simulate(layer: Layer, layers: int, at_once: int, rates: Rates, nodes: Nodes) -> Simulated:
    """So many layers like one, some at one time, from the first task to the last."""
    return _Run(layer, layers, at_once, rates, nodes, Random(0)).run()


@dataclass
class _Run:
    layer: Layer
    layers: int
    at_once: int
    rates: Rates
    nodes: Nodes
    random: Random
    seen: Simulated = field(default_factory=Simulated)

    def run(self) -> Simulated:
        plan = stages(self.layer, self.rates, self.nodes)
        self._ready: deque[tuple[int, int]] = deque()  # layer, stage
        self._due = {0: 0}
        self._free, self._events = list(range(self.nodes.workers)), list[tuple[float, int, int, int, float]]()
        self._coming, self._scheduler = iter(range(self.layers)), 0.0
        for number in self._next(self.at_once):
            self._hand_out(number, 0, plan)
        now = 0.0
        while self._ready or self._events:
            while self._ready and self._free:
                self._begin(now, plan)
            now, worker, number, stage, seconds = heappop(self._events)
            self._free.append(worker)
            self._end(number, stage, seconds, plan)
        self.seen.seconds = now
        return self.seen

    def _next(self, many: int) -> Iterator[int]:
        return (number for _, number in zip(range(many), self._coming, strict=False))

    def _hand_out(self, number: int, stage: int, plan: list[Stage]) -> None:
        self._due[number] = plan[stage].tasks
        more = [(number, stage)] * plan[stage].tasks
        if stage:
            self._ready.extendleft(more)  # what is begun comes first
        else:
            self._ready.extend(more)

    def _begin(self, now: float, plan: list[Stage]) -> None:
        """A worker takes the next task, as soon as the scheduler has time for it."""
        number, stage = self._ready.popleft()
        seconds = plan[stage].seconds * self.random.lognormvariate(0, self.nodes.spread)
        self._scheduler = max(self._scheduler, now) + plan[stage].scheduler
        self.seen.scheduler += plan[stage].scheduler
        self.seen.tasks += 1
        heappush(self._events, (self._scheduler + seconds, self._free.pop(), number, stage, seconds))

    def _end(self, number: int, stage: int, seconds: float, plan: list[Stage]) -> None:
        """Take a result; of a node that failed meanwhile there is none, and the task is handed out again."""
        if self.random.random() < seconds / HOUR * self.nodes.failures:
            self.seen.lost += seconds
            self._ready.appendleft((number, stage))
            return
        self.seen.worked += seconds
        self._due[number] -= 1
        if self._due[number]:
            return
        if stage + 1 < len(plan):
            self._hand_out(number, stage + 1, plan)
        else:
            for another in self._next(1):
                self._hand_out(another, 0, plan)
