"""Pooling, binning and packing on a device of torch: the same keys as on the CPU, bit for bit.

Each is a sequence of elementwise operations in the order of the compiled loops (`kernels`), and each of those is exact
or rounded once: a maximum, a comparison, a float64 sum, a division. What has no such form here (codings, reductions
beyond pooling, dtypes that torch lacks) is computed on the CPU. Kernel sums of density estimators are the exception:
matrix products are summed in any order, and what that may change is bounded (`ibstore.analyze.estimate.kde`).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from ibstore.analyze.encode import Packed
from ibstore.analyze.estimate.pairs import Floats, Labels, Points, block_pairs, spans
from ibstore.analyze.grammar import Recipe
from ibstore.analyze.reduce import REDUCTIONS, avgpool, maxpool, windows
from ibstore.devices import resolve_device
from ibstore.errors import IbstoreError

if TYPE_CHECKING:
    import torch

DTYPES: Final = frozenset(map(np.dtype, ("f4", "f8", "u1", "i1", "i2", "i4", "i8")))

BITS_AT_ONCE: Final = 1 << 26
"""Bits that are packed together; each takes some bytes on the device."""


class Device:
    """A device of torch, ``cuda`` or ``cuda:1``, for any number of threads.

    Raises
    ------
    UsageError
        When torch cannot work on it here.
    """

    def __init__(self, name: str) -> None:
        self._device = resolve_device(name)

    @property
    def beside_the_cpu(self) -> bool:
        """Whether it is another than the CPU, which has faster ways than torch's."""
        return self._device.type != "cpu"

    def reduced(self, recipe: Recipe, block: NDArray[Any]) -> NDArray[Any] | None:
        """A block (sample, …) reduced, if the recipe pools; None for what is reduced on the CPU."""
        function = REDUCTIONS[recipe.reduction.name]
        if function not in (maxpool, avgpool) or block.dtype not in DTYPES:
            return None
        values, window, shape = windows(recipe.chosen(block), tuple(int(size) for size in recipe.reduction.args))
        return self._guarded(lambda: self._pool(values, window, mean=function is avgpool)).reshape(shape)

    def _pool(self, values: NDArray[Any], window: tuple[int, int, int], *, mean: bool) -> NDArray[Any]:
        import torch

        there = self._there(values)
        if not mean:
            return self._here(_combined(there, window, torch.maximum))
        sums = _combined(there.to(torch.float64), window, torch.add)
        cells = sums.new_tensor(float(np.prod(window)))  # on the device: CUDA multiplies by a host number's reciprocal
        means = self._here(sums / cells)
        return means.astype(np.result_type(values.dtype, np.float32))

    def keys(self, values: NDArray[Any], edges: NDArray[Any], bits: int) -> Packed | None:
        """Packed numbers of ``edges``, (edge, unit), ≤ value, for values (sample, unit); None for the CPU's dtypes."""
        if values.dtype not in DTYPES:
            return None
        return self._guarded(lambda: self._keys(values, edges, bits))

    def _keys(self, values: NDArray[Any], edges: NDArray[Any], bits: int) -> Packed:
        import torch

        there, steps = self._there(values), self._there(edges)
        codes = torch.zeros(there.shape, dtype=torch.int32, device=self._device)
        for step in steps:
            codes += there >= step
        rows = max(1, BITS_AT_ONCE // max(1, bits * values.shape[1]))
        return np.concatenate([self._here(_packed(some, bits)) for some in torch.split(codes, rows)])

    def kernel_sums(self, points: Points, labels: Labels, dtype: type[np.floating[Any]] = np.float64) -> Floats:
        """What `pairs.kernel_sums` gives, of all points on the device at once; float32 is never rounded to TF32."""
        return self._guarded(lambda: self._kernel_sums(points, labels, dtype))

    def _kernel_sums(self, points: Points, labels: Labels, dtype: type[np.floating[Any]]) -> Floats:
        import torch

        samples, every = len(labels), slice(None)
        there = {rows.start: self._there(points.block(rows, every, dtype)) for rows in spans(samples)}
        half, label = self._there(points.halves), self._there(labels)
        sums = torch.zeros((4, samples), dtype=torch.float64, device=self._device)
        with _full_float32():
            for left, right in block_pairs(samples):
                t = half[left, None] + half[right] - there[left.start] @ there[right.start].T
                if left == right:
                    t.fill_diagonal_(torch.inf)  # no sample is its own neighbour
                kernels = _kernels(t, label[left, None] == label[right])
                sums[:, left] += kernels.sum(dim=2)
                if left != right:
                    sums[:, right] += kernels.sum(dim=1)
        return self._here(sums)

    def _there(self, values: NDArray[Any]) -> "torch.Tensor":
        import torch

        return torch.from_numpy(np.require(values, requirements=["C", "W"])).to(self._device)

    @staticmethod
    def _here(values: "torch.Tensor") -> NDArray[Any]:
        return np.asarray(values.cpu().numpy())

    def _guarded(self, work: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Do the work; what the device has no memory for is an error that says what to do."""
        import torch

        try:
            return work()
        except torch.OutOfMemoryError as error:
            raise IbstoreError(
                f"{self._device} has too little free memory ({str(error).splitlines()[0]}); give fewer --threads, or "
                "--device cpu"
            ) from None


def _combined(
    values: "torch.Tensor",
    window: tuple[int, int, int],
    combine: "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]",
) -> "torch.Tensor":
    """Windows of (row, channel, height, width) combined: whole lines first, then neighbours, as `kernels.pool` does."""
    deep, high, wide = window
    channels, height, width = (length // size for length, size in zip(values.shape[1:], window, strict=True))
    cut = values[:, : channels * deep, : height * high, : width * wide]
    cells = cut.reshape(len(cut), channels, deep, height, high, width, wide)
    lines: Iterable[torch.Tensor] = (cells[:, :, inner // high, :, inner % high] for inner in range(deep * high))
    line = reduce(combine, lines)
    return reduce(combine, (line[..., inner] for inner in range(wide)))


def _packed(codes: "torch.Tensor", bits: int) -> "torch.Tensor":
    """Codes (sample, unit) as (sample, byte), most significant bit first."""
    import torch
    from torch.nn.functional import pad

    shifts = torch.arange(bits - 1, -1, -1, dtype=torch.int32, device=codes.device)
    digits = (codes[:, :, None] >> shifts & 1).to(torch.uint8).reshape(len(codes), -1)
    eights = pad(digits, (0, -digits.shape[1] % 8)).reshape(len(codes), -1, 8)
    places = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=codes.device)
    return (eights * places).sum(dim=2, dtype=torch.uint8)


def _kernels(t: "torch.Tensor", own: "torch.Tensor") -> "torch.Tensor":
    """e⁻ᵗ and e⁻⁴ᵗ, (left, right), and both where the label is the own: (4, left, right)."""
    import torch

    wide = torch.exp(-t.clamp_(min=0))
    narrow = wide.square().square()
    return torch.stack([wide, narrow, wide * own, narrow * own])


@contextmanager
def _full_float32() -> Iterator[None]:
    """Products of float32 without TF32; what the process had set before is set again afterwards."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
