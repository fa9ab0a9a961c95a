"""Many networks at once against one after another: an epoch of all of them, whole training steps.

Both ways take turns within one process, and the quickest turn of each counts. Work beside it on the cores does not slow
both alike: two threads that wait for each other in every small operation make networks one after another ten times
slower, and ratios turn by turn would credit the ensemble with that. For the same reason every way is compared with one
after another at the number of threads at which that is quickest.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.measure import keep, machine
from ibstore.capture.models import mnist14_conv, mnist_cnn, szt
from ibstore.capture.training.ensemble import stack
from ibstore.capture.training.order import Order

TURNS = 9
LR = 0.01


@dataclass(frozen=True)
class Case:
    """Networks to train, on how many samples of what shape, in batches of what size."""

    title: str
    make: Callable[[], nn.Module]
    networks: int
    samples: int
    shape: tuple[int, ...]
    batch: int


class Mapped(nn.Sequential):
    """A `nn.Sequential` that does not look like one, so that it is mapped over by vmap."""


CASES = {
    "szt": Case("50 × 12-10-7-5-4-3-2, stacked layers", szt, 50, 4096, (12,), 256),
    "szt-relu": Case("50 of them with ReLU, stacked layers", lambda: szt("relu"), 50, 4096, (12,), 256),
    "szt-vmap": Case("50 of them with tanh, vmap", lambda: Mapped(*szt().children()), 50, 4096, (12,), 256),
    "mnist14-conv": Case("50 × the 14 × 14 convolution, vmap", mnist14_conv, 50, 1000, (1, 14, 14), 101),
    "mnist-cnn": Case("5 × the MNIST CNN, vmap", mnist_cnn, 5, 500, (1, 28, 28), 100),
}
"""The first is the goal's; the last shows that large networks gain nothing on a CPU."""

Epoch = Callable[[], None]


def main() -> None:
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, torch {torch.__version__}; plain SGD, quickest of {TURNS} turns.",
        "",
        "| what | threads | one after another | at once | × the quickest one after another |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, case in CASES.items():
        costs = {threads: quickest(name, threads) for threads in (1, 2)}
        baseline = min(alone for alone, _ in costs.values())
        lines += [row(case.title, threads, *cost, baseline) for threads, cost in costs.items()]
    keep("ensemble", "\n".join(lines))


def quickest(name: str, threads: int) -> tuple[float, float]:
    """Seconds of the quickest epoch, one after another and at once, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ensemble", name, str(threads)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    alone, at_once = zip(*json.loads(done.stdout.splitlines()[-1]), strict=True)
    return min(alone), min(at_once)


def row(title: str, threads: int, alone: float, at_once: float, baseline: float) -> str:
    return f"| {title} | {threads} | {1000 * alone:.0f} ms | {1000 * at_once:.0f} ms | {baseline / at_once:.1f} |"


def compare(case: Case, threads: int) -> list[tuple[float, float]]:
    """Seconds of an epoch of all networks, one after another and at once, turn by turn."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    models = [case.make() for _ in range(case.networks)]
    x = torch.randint(0, 2, (case.samples, *case.shape)).float()
    y = torch.randint(0, 2, (case.samples,))
    alone, at_once = train_alone(case, models, x, y), train_at_once(case, models, x, y)
    alone()
    at_once()
    epochs = max(1, round(seconds(alone) / seconds(at_once)))  # turns as long: a short one finds a quiet moment sooner
    return [(seconds(alone), seconds(lambda: repeat(at_once, epochs)) / epochs) for _ in range(TURNS)]


def train_alone(case: Case, models: list[nn.Module], x: torch.Tensor, y: torch.Tensor) -> Epoch:
    """The plain loop, a network after the other."""
    trained = [
        (model, torch.optim.SGD(model.parameters(), lr=LR), Order(len(x), case.batch, seed))
        for seed, model in enumerate(models)
    ]

    def epoch() -> None:
        for model, optimizer, order in trained:
            for _ in range(order.per_epoch):
                rows = order.draw()
                optimizer.zero_grad()
                cross_entropy(model(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    return epoch


def train_at_once(case: Case, models: list[nn.Module], x: torch.Tensor, y: torch.Tensor) -> Epoch:
    """The step of the bundled training: each network has a batch of its own, in an order of its own."""
    ensemble = stack(models)
    optimizer = torch.optim.SGD(ensemble.parameters(), lr=LR)
    orders = [Order(len(x), case.batch, seed) for seed in range(len(models))]

    def epoch() -> None:
        for _ in range(orders[0].per_epoch):
            rows = torch.stack([order.draw() for order in orders])
            optimizer.zero_grad()
            output = ensemble(x[rows])
            losses = cross_entropy(output.flatten(0, 1), y[rows].flatten(), reduction="none")
            losses.reshape(rows.shape).mean(-1).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return epoch


def repeat(work: Epoch, times: int) -> None:
    for _ in range(times):
        work()


def seconds(work: Epoch) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(compare(CASES[sys.argv[1]], int(sys.argv[2]))))
    else:
        main()
