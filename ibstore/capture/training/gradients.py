"""What a bundled training tells of its gradients, at each capture point and by each definition that is asked for."""

from collections.abc import Iterator
from typing import Any

import torch

from ibstore.capture.datasets.draws import generator
from ibstore.capture.dynamics import FIXED, PARALLEL, Dynamics, ParallelMinibatches, fixed_minibatches, owned_names
from ibstore.capture.forward import ProbePass, batches
from ibstore.capture.inputs import Inputs
from ibstore.capture.training.job import Job
from ibstore.capture.training.networks import Networks
from ibstore.errors import UsageError
from ibstore.store.format import schema


class GradientsSeen:
    """Sees the gradients of every step, and tells the dynamics of each run.

    The minibatches of the variants ``fixed`` and ``parallel`` are the training samples in their own order, cut.

    Parameters
    ----------
    job
        What the runs share.
    networks
        What is trained.

    Raises
    ------
    UsageError
        When a variant that is made of one network's minibatches is asked for of many networks.
    """

    def __init__(self, job: Job, networks: Networks) -> None:
        self._job, self._model = job, networks.plain(0)
        recording = job.settings.recording
        if networks.replicas is not None and (recording.fixed_minibatches or recording.parallel_minibatches):
            raise UsageError(
                "--fixed-minibatches and --parallel-minibatches are about the minibatches of one network; leave "
                "--replicas out"
            )
        x, _ = next(self._minibatches())
        one = ProbePass(self._model, Inputs.of(x), len(x), job.device)
        names = owned_names(self._model, job.layers(self._model), one.try_first)
        owners = {layer: [networks.parameters[name] for name in own] for layer, own in names.items()}
        self._owners = owners
        self._dynamics = Dynamics(owners, networks.optimizer, networks.replicas)
        self._parallel: ParallelMinibatches | None = None
        if recording.parallel_minibatches:
            minibatches, losses = list(self._minibatches()), job.objective.losses
            self._parallel = ParallelMinibatches(self._model, names, minibatches, losses, job.optimizer)

    @property
    def kept(self) -> dict[str, Any]:
        """What it needs to go on, by name."""
        return {} if self._parallel is None else {"parallel": self._parallel}

    def add(self) -> None:
        """See the gradients of a step."""
        self._dynamics.add()

    def end_epoch(self) -> None:
        """Let the networks of the parallel minibatches take their step."""
        if self._parallel is not None:
            self._parallel.epoch()

    def now(self) -> list[schema.Dynamics]:
        """Dynamics of each run since `restart`."""
        found = [dict(own) for own in self._dynamics.now()]
        if self._parallel is not None:
            found[0][PARALLEL] = self._parallel.read()
        if self._job.settings.recording.fixed_minibatches:
            found[0][FIXED] = fixed_minibatches(
                self._model,
                self._owners,
                self._minibatches(),
                self._job.objective.losses,
                self._job.paid_by(self._model),
            )
        return list(found)

    def restart(self) -> None:
        """Forget the gradients that were seen: the next capture point has those after this one."""
        self._dynamics.restart()

    def _minibatches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The training samples in a random order that stays, cut: in their own they may be sorted by what they are."""
        samples, device, settings = self._job.data.train, self._job.device, self._job.settings
        order = generator(settings.seed, "minibatches").permutation(len(samples))
        for place in batches(len(samples), settings.batch_size):
            rows = order[place]
            yield torch.from_numpy(samples.x[rows]).to(device), torch.from_numpy(samples.y[rows]).to(device)
