"""The forward pass of a probe set: fixed order, eval mode, no gradients, nothing left behind."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ibstore.capture import hooks, values
from ibstore.capture.arguments import check_model
from ibstore.capture.dropout import drawing, is_itself_with_noise, transmitting
from ibstore.capture.inputs import Inputs
from ibstore.capture.metrics import Measure
from ibstore.capture.running import Named, looking, running
from ibstore.capture.specs import LayerSpec
from ibstore.capture.transfer import Transfer, Wait, one_behind
from ibstore.capture.unwrap import as_written, check_watchable, unwrapped
from ibstore.errors import CaptureError, IbstoreError


@dataclass(frozen=True, slots=True)
class Spoken:
    """What layers say of a batch.

    Parameters
    ----------
    samples
        How many it has.
    layers
        Activations, (sample, …), by layer, on the CPU.
    measured
        Means over the batch, by name.
    arrived
        Returns when the host may read all that.
    """

    samples: int
    layers: Mapping[str, torch.Tensor]
    measured: Mapping[str, torch.Tensor | float]
    arrived: Wait


@dataclass(frozen=True, slots=True)
class ProbePass:
    """Runs a probe set through a network, batch by batch; to be used while `evaluating`.

    Parameters
    ----------
    model
        The network, unwrapped.
    inputs
        What it is given.
    batch_size
        Samples in a batch; the last one has what is left.
    device
        Where the network is.
    y
        Labels, (sample,); None where there are none.
    measure
        Gives means over a batch from the network's output and the labels, where there are labels.
    named
        What the samples are called; None: nobody needs to know.
    """

    model: nn.Module
    inputs: Inputs
    batch_size: int
    device: torch.device
    y: torch.Tensor | None = None
    measure: Measure | None = None
    named: Named | None = None

    def batches(self) -> list[slice]:
        """Rows of each batch, in order."""
        return batches(len(self.inputs), self.batch_size)

    def run(self, rows: slice) -> Any:
        """What the network puts out for these rows."""
        named = Named("", np.arange(len(self.inputs))) if self.named is None else self.named
        with running(named.rows(rows)):
            return self.inputs.given_to(self.model, rows, self.device)

    def try_first(self) -> Any:
        """Run the first batch.

        Raises
        ------
        CaptureError
            When the network cannot take it.
        """
        first = self.batches()[0]
        try:
            return self.run(first)
        except IbstoreError:
            raise
        except Exception as error:
            raise CaptureError(
                f"the network fails on the first batch of x, {self.inputs.shapes(first)} on {self.device} "
                f"({type(error).__name__}: {error}); give x as the network takes it"
            ) from error

    def discover(
        self, layers: Sequence[str] | None, pass_over: Callable[[str], None]
    ) -> list[tuple[LayerSpec, torch.Tensor]]:
        """Layers to record, each with what it puts out for the first batch; see `ibstore.capture.hooks.discover`."""
        first = self.batches()[0]
        return hooks.discover(self.model, layers, self.try_first, first.stop, pass_over)

    def first(self, layers: Sequence[LayerSpec]) -> dict[str, torch.Tensor]:
        """What layers say of the first batch, copied to the CPU."""
        with hooks.copying(self.model, layers, lambda tensor: tensor.detach().to("cpu", copy=True)) as copies:
            self.try_first()
        return copies

    def spoken(self, layers: Sequence[LayerSpec], batches: Iterable[slice]) -> Iterator[Spoken]:
        """What layers say of these batches, in order, each when the forward pass of the next one was begun."""
        with_noise = not (self.measure is None or self.y is None) and is_itself_with_noise(self.model)
        for batch in one_behind(self._speak(layers, rows, with_noise) for rows in batches):
            batch.arrived()
            yield batch

    def _speak(self, layers: Sequence[LayerSpec], rows: slice, with_noise: bool) -> Spoken:
        transfer = Transfer()
        with hooks.copying(self.model, layers, transfer.copy) as copies, transmitting(self.model) as heard:
            output = self.run(rows)
        samples = rows.stop - rows.start
        told = {f"kl_{path}": each.nats.sum() / samples for path, each in heard.items()}
        means = _with(self._measured(output, rows), told)
        if with_noise:
            means = _with(means, self._measured_with_noise(rows))
        measured = {name: transfer.copied(mean) for name, mean in means.items()}
        return Spoken(samples, copies, measured, transfer.sent())

    def _measured(self, output: Any, rows: slice) -> Mapping[str, torch.Tensor | float]:
        if self.measure is None or self.y is None:
            return {}
        return self.measure(output, self.y[rows].to(self.device))

    def _measured_with_noise(self, rows: slice) -> Mapping[str, torch.Tensor | float]:
        """What a stochastic network is measured as it is trained, in a pass of its own: ``noisy_loss``, ….

        Its mean over the noise is what a variational bound has; the loss without noise is not.
        """
        with drawing(self.model):
            measured = self._measured(self.run(rows), rows)
        return {f"noisy_{name}": mean for name, mean in measured.items()}


def _with(
    means: Mapping[str, torch.Tensor | float], own: Mapping[str, torch.Tensor | float]
) -> dict[str, torch.Tensor | float]:
    """What a user's own measure gives, and what stochastic layers say."""
    taken = [name for name in own if name in means]
    if taken:
        raise CaptureError(f"measure gives {taken[0]!r}, which stochastic layers say themselves; rename it")
    return {**means, **own}


def activations(
    model: nn.Module, x: Any, layers: Sequence[str] | None = None, *, batch_size: int = 1000
) -> dict[str, NDArray[Any]]:
    """What layers of a network say of ``x`` in eval mode, as a `Recorder` would record it; nothing is stored.

    Parameters
    ----------
    model, x, layers, batch_size
        As a `Recorder` takes them.

    Returns
    -------
    dict[str, NDArray]
        Activations, (sample, …), by layer, in execution order; bfloat16 as float32, truth values as bytes.

    Raises
    ------
    CaptureError
        When the network cannot take ``x``, or a layer cannot be recorded.
    UsageError
        When an argument cannot be meant.

    Examples
    --------
    >>> found = activations(nn.Sequential(nn.Identity(), nn.ReLU()), torch.tensor([[-1.0], [2.0]]), ["1"])
    >>> found["1"].tolist()
    [[0.0], [2.0]]
    """
    check_model(model, batch_size)
    network, inputs = unwrapped(model), Inputs.of(x)
    check_watchable(network)
    if not len(inputs):
        raise CaptureError("x has no samples; give at least one")
    probe = ProbePass(network, inputs, batch_size, device_of(network))
    with evaluating(network):
        specs = [spec for spec, _ in probe.discover(layers, lambda _fact: None)]
        parts = [batch.layers for batch in probe.spoken(specs, probe.batches())]
    return {spec.name: values.encode(torch.cat([part[spec.name] for part in parts]), None) for spec in specs}


def batches(samples: int, size: int) -> list[slice]:
    """Rows of each batch, in order; the last one has what is left.

    >>> batches(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(start, min(start + size, samples)) for start in range(0, samples, size)]


def device_of(model: nn.Module) -> torch.device:
    """Device of the network's first parameter; the CPU where it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@contextmanager
def evaluating(model: nn.Module, autocast: torch.dtype | None = None) -> Iterator[None]:
    """Eval mode without gradients; each module's own mode and the random numbers come back as they were.

    Compiled code runs eagerly. Autocast is off, also inside the caller's own, unless a type is given. Its cache of cast
    weights is neither read nor written: some versions of torch would train on casts that were made without gradients.
    """
    modes = [(module, module.training) for module in model.modules()]
    with ExitStack() as entered:
        entered.enter_context(random_state_kept(model))
        # no_grad, not inference_mode: what a network caches in its forward pass must stay fit for training
        entered.enter_context(torch.no_grad())
        entered.enter_context(looking())
        entered.enter_context(as_written(model))
        own = device_of(model).type
        for kind in {own, "cpu"}:
            if torch.amp.is_autocast_available(kind):
                wanted = autocast if kind == own else None
                entered.enter_context(torch.autocast(kind, wanted, enabled=wanted is not None, cache_enabled=False))
        try:
            model.eval()
            yield
        finally:
            for module, training in modes:
                module.training = training


@contextmanager
def random_state_kept(model: nn.Module) -> Iterator[None]:
    """Put back the random state of the CPU and of the devices that the network is on.

    On Apple's mps, whose state torch cannot fork, the CPU's alone.
    """
    on = {parameter.device for parameter in model.parameters() if parameter.device.type not in ("cpu", "mps", "meta")}
    kind = min((device.type for device in on), default="cuda")
    indices = sorted(device.index or 0 for device in on if device.type == kind)
    with torch.random.fork_rng(indices, device_type=kind):
        yield
