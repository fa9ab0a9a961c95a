"""Quantized networks need no binning: their few values are counted as they are, equal to a Counter of the integers."""

import math
import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ibstore
from ibstore.errors import CaptureError, ValuesError

SAMPLES, EPOCHS = 600, (0, 1, 2)
RANGES = {"int8": (-128, 127), "int4": (-8, 7)}
SCALES = {"binary": (1 / 32, 1 / 4), "decimal": (0.03, 0.3)}
"""Of int8 and int4: powers of two, with which a value has the integer's own bits, and others."""

LAYERS = {"int8": "int8", "codes8": "int8", "unsigned": "int8", "int4": "int4", "codes4": "int4"}
"""What is recorded, and of which integers it is."""

WAISTS = {"fine": "*=identity | exact", "coarse": "x=identity | threshold(0.4); *=identity | exact"}
TOLD = ("h_t", "i_xt", "i_ty", "distinct_t", "singletons_t")

Integers = Mapping[tuple[str, int], np.ndarray]
"""By layer and epoch, (sample, unit)."""

Taken = tuple[ibstore.Study, Integers]
"""What was recorded, and what it should say."""


class Fake(nn.Module):
    """Floats as a quantized network has them."""

    def __init__(self, scale: float, low: int, high: int) -> None:
        super().__init__()
        self.scale, self.low, self.high = scale, low, high

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fake_quantize_per_tensor_affine(x, self.scale, 0, self.low, self.high)

    def integers(self, x: torch.Tensor) -> np.ndarray:
        """The integers behind them, by numpy: ties to even."""
        scaled = x.detach().numpy() * np.float32(1 / np.float32(self.scale))
        return np.clip(np.rint(scaled), self.low, self.high).astype(int)


class Codes(nn.Module):
    """The integers of such floats, as a deployed network has them."""

    def __init__(self, scale: float, zero: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.scale, self.zero, self.dtype = scale, zero, dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.round(x / self.scale + self.zero).to(self.dtype)


class Quantized(nn.Module):
    """3-2-3-3, of 8 bits and then of 4; beside the floats their integers, those of 8 bits unsigned too."""

    def __init__(self, scales: tuple[float, float]) -> None:
        super().__init__()
        eight, four = scales
        self.first, self.second, self.out = nn.Linear(3, 2), nn.Linear(2, 3), nn.Linear(3, 3)
        self.int8, self.int4 = Fake(eight, *RANGES["int8"]), Fake(four, *RANGES["int4"])
        self.codes8, self.unsigned = Codes(eight, 0, torch.int8), Codes(eight, 128, torch.uint8)
        self.codes4 = Codes(four, 0, torch.int8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        eight = self.int8(4 * self.first(x))
        four = self.int4(self.second(eight))
        self.codes8(eight)
        self.unsigned(eight)
        self.codes4(four)
        return self.out(four)

    def integers(self, x: torch.Tensor) -> dict[str, np.ndarray]:
        eight = 4 * self.first(x)
        return {"int8": self.int8.integers(eight), "int4": self.int4.integers(self.second(self.int8(eight)))}


def probe() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs of nine values a unit, so that some are the same, and labels that hang on them, but not on them alone."""
    random = np.random.default_rng(0)
    x = random.integers(0, 9, (SAMPLES, 3))
    y = (x.sum(axis=1) + random.integers(0, 4, SAMPLES)) // 7 % 3
    return torch.tensor(x / 8, dtype=torch.float32), torch.tensor(y)


def recorded(store: Path, scales: tuple[float, float], dtype: str | None = None) -> Taken:
    """Train a few steps between one epoch and the next."""
    x, y = probe()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Quantized(scales)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    integers = {}
    with ibstore.Recorder(store, model, layers=list(LAYERS), x=x, y=y, dtype=dtype) as recorder:
        for epoch in EPOCHS:
            recorder.record(epoch)
            integers |= {(layer, epoch): own for layer, own in model.integers(x).items()}
            for _ in range(10):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
    return ibstore.open(store), integers


@pytest.fixture(scope="module")
def all_taken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Taken]:
    return {name: recorded(tmp_path_factory.mktemp(name) / "lab.zarr", scales) for name, scales in SCALES.items()}


@pytest.fixture(params=SCALES)
def taken(request: pytest.FixtureRequest, all_taken: dict[str, Taken]) -> Taken:
    return all_taken[request.param]


@pytest.fixture
def binary(all_taken: dict[str, Taken]) -> Taken:
    return all_taken["binary"]


# ---- what it should be


def entropy(keys: Iterable[Hashable]) -> float:
    counts = Counter(keys)
    return math.fsum(n / counts.total() * math.log2(counts.total() / n) for n in counts.values())


def reference(t: np.ndarray, x: Sequence[Hashable], y: Sequence[Hashable]) -> list[float]:
    """H(T), I(X;T), I(T;Y), distinct keys and those seen once."""
    keys = list(map(tuple, t.tolist()))
    i_xt = entropy(x) + entropy(keys) - entropy(zip(x, keys, strict=True))
    i_ty = entropy(y) + entropy(keys) - entropy(zip(keys, y, strict=True))
    counts = Counter(keys)
    return [entropy(keys), i_xt, i_ty, len(counts), sum(n == 1 for n in counts.values())]


def inputs(waist: str = "fine") -> tuple[list[Hashable], list[Hashable]]:
    """X as the waist sees it, and Y."""
    x, y = probe()
    return list(map(tuple, ((x > 0.4) if waist == "coarse" else x).tolist())), y.tolist()


def shortened(integers: np.ndarray, bits: int) -> np.ndarray:
    """The first ``bits`` bits of each magnitude."""
    rest = np.vectorize(lambda magnitude: max(0, int(magnitude).bit_length() - bits))(abs(integers))
    return np.sign(integers) * (abs(integers) >> rest << rest)


def found(study: ibstore.Study, layer: str, waist: str) -> list[list[float]]:
    """The same as the plane has it, epoch after epoch."""
    table = study.analyze(f"own: {waist}").filter(layer=layer).sort("epoch")
    assert table["epoch"].to_list() == list(EPOCHS)
    return [list(row) for row in table.select(TOLD).iter_rows()]


def about(rows: Iterable[Sequence[float]]) -> list[object]:
    return [pytest.approx(row, abs=1e-12) for row in rows]


# ---- counted as they are


def test_integers_stay_what_they_are_in_the_store(taken: Taken) -> None:
    study, integers = taken
    dtypes = {"codes4": "int8", "codes8": "int8", "int4": "float32", "int8": "float32", "unsigned": "uint8"}
    assert dict(study.query("SELECT layer, dtype FROM layers").iter_rows()) == dtypes
    for layer, zero in {"codes8": 0, "unsigned": 128, "codes4": 0}.items():
        values = study.query(f"SELECT value FROM activations WHERE layer = '{layer}' ORDER BY epoch, sample, unit")
        expected = np.concatenate([integers[LAYERS[layer], epoch].ravel() for epoch in EPOCHS])
        np.testing.assert_array_equal(values["value"], expected + zero)


@pytest.mark.parametrize("waist", WAISTS)
@pytest.mark.parametrize("layer", LAYERS)
def test_exact_counts_the_integers(taken: Taken, layer: str, waist: str) -> None:
    """Of the floats, of their integers and of the same unsigned; with X as it is, and under a waist."""
    study, integers = taken
    expected = [reference(integers[LAYERS[layer], epoch], *inputs(waist)) for epoch in EPOCHS]
    assert found(study, layer, WAISTS[waist]) == about(expected)


def test_the_reference_has_something_to_say(taken: Taken) -> None:
    """Neither one pattern for all samples nor one for each; 8 bits confuse inputs, 4 bits more; ends are in use."""
    _, integers = taken
    x, y = inputs()
    for epoch in EPOCHS:
        eight, four = (reference(integers[layer, epoch], x, y) for layer in RANGES)
        assert 10 < four[3] < eight[3] <= len(set(x)) < SAMPLES
        assert 0.1 < four[2] < eight[2]
        assert four[0] < eight[0] - 1
        assert reference(integers["int8", epoch], *inputs("coarse"))[1] < eight[1] - 1
    assert eight[3] < len(set(x)) - 5
    for layer, (low, high) in RANGES.items():
        values = np.concatenate([own.ravel() for (name, _), own in integers.items() if name == layer])
        assert values.min() == low or values.max() == high
        assert len(np.unique(values)) > (high - low) / 2


@pytest.mark.parametrize("bins", ["labels", "width(1)", "uniform(bins=256, lo=-128.5, hi=127.5)"])
@pytest.mark.parametrize("layer", ["codes8", "codes4"])
def test_integers_in_bins_of_one_are_counted_alike(binary: Taken, layer: str, bins: str) -> None:
    study, integers = binary
    expected = [reference(integers[LAYERS[layer], epoch], *inputs()) for epoch in EPOCHS]
    assert found(study, layer, f"{layer}=identity | {bins}") == about(expected)


# ---- a shorter mantissa


@pytest.mark.parametrize(("layer", "mantissa"), [("int8", 7), ("int8", 23), ("int4", 3)])
def test_a_mantissa_of_as_many_bits_as_the_integers_is_enough(taken: Taken, layer: str, mantissa: int) -> None:
    """As no integer is beyond 2ᵐ, neighbours lie a bin apart even where bins are widest, whatever the scale."""
    study, integers = taken
    expected = [reference(integers[layer, epoch], *inputs()) for epoch in EPOCHS]
    assert found(study, layer, f"{layer}=identity | float_bits(mantissa={mantissa})") == about(expected)


@pytest.mark.parametrize("mantissa", range(1, 8))
@pytest.mark.parametrize("layer", RANGES)
def test_fewer_bits_are_the_integers_first_ones(binary: Taken, layer: str, mantissa: int) -> None:
    """A scale that is a power of two leaves them as they are: the first one is not stored, ``mantissa`` more are."""
    study, integers = binary
    short = [shortened(integers[layer, epoch], mantissa + 1) for epoch in EPOCHS]
    lost = any((own != integers[layer, epoch]).any() for epoch, own in zip(EPOCHS, short, strict=True))
    assert lost is (mantissa < {"int8": 6, "int4": 2}[layer])
    expected = [reference(own, *inputs()) for own in short]
    assert found(study, layer, f"{layer}=identity | float_bits(mantissa={mantissa})") == about(expected)


def test_integers_have_no_mantissa(binary: Taken) -> None:
    study, _ = binary
    with pytest.raises(
        ValuesError, match=r"layer 'codes8', epoch 0: float_bits takes floats, these are int8, which exact counts"
    ):
        study.analyze("own: codes8=identity | float_bits(mantissa=3)")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_eight_bits_survive_rounding(dtype: str, tmp_path: Path, binary: Taken) -> None:
    """A float that has room for the integer has it for the integer times a power of two; integers are not rounded."""
    study, _ = recorded(tmp_path / "lab.zarr", SCALES["binary"], dtype)
    for layer in LAYERS:
        assert found(study, layer, WAISTS["fine"]) == found(binary[0], layer, WAISTS["fine"])


# ---- what a row says of itself


class Number(nn.Module):
    """The input modulo so many, as an integer."""

    def __init__(self, most: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.most, self.dtype = most, dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x % self.most).to(self.dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_a_pattern_for_every_sample_is_saturated(dtype: torch.dtype, tmp_path: Path) -> None:
    count = 128
    model = nn.Sequential(Number(count, dtype), Number(16, dtype))
    x = torch.arange(count)[:, None]
    with ibstore.Recorder(tmp_path / "lab.zarr", model, layers=["0", "1"], x=x, y=x[:, 0] % 2) as recorder:
        recorder.record(0)
    table = ibstore.open(tmp_path / "lab.zarr").analyze("own: *=identity | exact")
    assert table["layer"].to_list() == ["0", "1"]
    assert table["saturated"].to_list() == [True, False]
    assert table["distinct_t"].to_list() == [count, 16]
    assert table["singletons_t"].to_list() == [count, 0]
    assert table["ceiling"].to_list() == [7, 7]
    assert table["h_t"].to_list() == pytest.approx([7, 4], abs=1e-12)
    assert table["i_ty"].to_list() == pytest.approx([1, 1], abs=1e-12)


class Rounded(nn.Module):
    """Quantized by hand: what is rounded to zero from below is −0.0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.round(4 * x) / 4


@pytest.mark.parametrize("bins", ["exact", "float_bits(mantissa=3)", "float_bits(mantissa=52)"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_both_zeros_are_one_value(dtype: torch.dtype, bins: str, tmp_path: Path) -> None:
    x = torch.linspace(-1, 1, 81, dtype=torch.float64).to(dtype)[:, None]
    values = Rounded()(x)
    zeros = values[values == 0]
    assert 0 < int(zeros.signbit().sum()) < len(zeros)  # of both signs
    with ibstore.Recorder(tmp_path / "lab.zarr", nn.Sequential(Rounded()), layers=["0"], x=x) as recorder:
        recorder.record(0)
    row = ibstore.open(tmp_path / "lab.zarr").analyze(f"own: *=identity | {bins}").row(0, named=True)
    integers = (4 * values).int().flatten().tolist()
    assert row["distinct_t"] == len(set(integers)) == 9
    assert row["h_t"] == pytest.approx(entropy(integers), abs=1e-12)


class Packed(nn.Module):
    """A tensor of torch's own quantized type, which holds scale and zero point beside the integers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch will give these types up
            return torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)


@pytest.mark.skipif(not hasattr(torch, "quantize_per_tensor"), reason="this torch has no quantized tensors any more")
def test_tensors_of_a_quantized_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"layer '0' puts out torch\.qint8; record a layer of its integers"):
        ibstore.Recorder(tmp_path / "lab.zarr", nn.Sequential(Packed()), layers=["0"], x=torch.zeros(3, 2))
    assert list(tmp_path.iterdir()) == []
