"""Events and relaxation times, of power laws with known breaks and of layers with known numbers of patterns."""

import math
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibstore.analyze import Study
from ibstore.analyze.measures import training
from ibstore.analyze.measures.breaks import broken_stick
from ibstore.analyze.measures.training import predicted
from ibstore.errors import UsageError
from tests.analyze import stores
from tests.analyze.stores import make_run, numbered

N = 64
X, Y = numbered(N, 1), np.arange(N) % 4
EPOCHS = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32]
STEPS = [10 * epoch for epoch in EPOCHS]
WAIST = "w: *=identity | exact"


def patterns(*bits: int) -> np.ndarray:
    """(epoch, sample, unit): 2^b patterns, equally many of each, so that I(X;T) = b and I(T;Y) = min(b, 2) bits."""
    return np.stack([np.arange(N) % 2**b for b in bits])[..., None].astype(np.float32)


def write(path, layers, *, run="run0", losses=None, snr=None, y=Y, split="train"):
    """A run at `EPOCHS`, as many as the layers have; ``snr`` by variant and layer."""
    epochs = EPOCHS[: len(next(iter(layers.values())))]
    metrics = {epoch: {split: {"loss": loss}} for epoch, loss in zip(epochs, losses or [], strict=False)}
    dynamics = {
        epoch: {
            variant: {layer: {"snr": own[at]} for layer, own in by_layer.items()}
            for variant, by_layer in (snr or {}).items()
        }
        for at, epoch in enumerate(epochs)
    }

    def write_epochs(writer, arrays, own, _):
        for at, epoch in enumerate(own):
            segment = writer.segment(epoch)
            for name, values in arrays[split].items():
                segment.append(split, name, values[at])
            segment.commit([10 * epoch], [metrics.get(epoch, {})], [dynamics[epoch]])

    with patch.object(stores, "write_epochs", write_epochs):
        make_run(path, {split: (X, y)}, {split: layers}, run=run, epochs=epochs)
    return Study(path)


def bent(place: int, before: float, after: float) -> list[float]:
    """Power laws of the step that meet at the capture point ``place``; at step 0 something else."""
    at = STEPS[place]
    return [7.0] + [(step / at) ** (before if step < at else after) for step in STEPS[1:]]


def test_the_three_events_of_each_layer_and_variant(tmp_path):
    study = write(
        tmp_path / "lab.zarr",
        {
            "hidden": patterns(1, 2, 3, 4, 5, 5, 4, 4, 3, 3, 3),
            "out": patterns(0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2),
        },
        losses=bent(5, -0.1, -2.0),
        snr={
            "epoch": {"hidden": [None, *bent(7, 0.0, -1.0)[1:]], "out": bent(4, -1.0, 0.0)},
            "fixed": {"hidden": bent(3, 0.2, -0.5)},
        },
    )
    asked = study.ask(WAIST)
    found = asked.measure("events").rows(named=True)
    assert [(row["layer"], row["variant"]) for row in found] == [
        ("hidden", "epoch"),
        ("hidden", "fixed"),
        ("out", "epoch"),
    ]
    for row in found:
        assert (row["loss_kink"], row["loss_kink_step"]) == (EPOCHS[5], STEPS[5])
        assert row["loss_explained"] == pytest.approx(1)
    assert [row["snr_drop"] for row in found] == [EPOCHS[7], EPOCHS[3], None]
    assert [row["snr_drop_step"] for row in found] == [STEPS[7], STEPS[3], None]
    assert [row["i_xt_turn"] for row in found] == [EPOCHS[4], EPOCHS[4], None]
    assert [row["i_xt_turn_step"] for row in found] == [STEPS[4], STEPS[4], None]
    assert [row["i_xt_fall"] for row in found] == pytest.approx([0.4, 0.4, 0.0])
    assert asked.measure("events(margin=0.41)")["i_xt_turn"].is_null().all()
    assert asked.measure("events", unit="nats").equals(asked.measure("events"))


def test_without_losses_and_dynamics_only_information_has_an_event(tmp_path):
    study = write(tmp_path / "lab.zarr", {"out": patterns(1, 3, 2)})
    [row] = study.ask(WAIST).measure("events").rows(named=True)
    assert (row["variant"], row["loss_kink"], row["loss_explained"], row["snr_drop"]) == (None,) * 4
    assert (row["i_xt_turn"], row["i_xt_turn_step"]) == (1, 10)


def test_events_are_those_of_the_epochs_that_are_asked_for(tmp_path):
    losses = bent(5, -0.1, -2.0)
    study = write(tmp_path / "lab.zarr", {"out": patterns(0, 1, 5, 5, 4, 3, 3, 4, 3, 3, 3)}, losses=losses, split="all")
    assert study.ask(WAIST).measure("events").row(0, named=True)["loss_kink"] == EPOCHS[5]
    [row] = study.ask(WAIST, epochs=EPOCHS[6:]).measure("events").rows(named=True)
    assert (row["loss_kink"], row["loss_explained"]) == (None, None)
    assert (row["i_xt_turn"], row["i_xt_turn_step"]) == (EPOCHS[7], STEPS[7])


def test_losses_that_have_no_logarithm_are_left_out(tmp_path):
    losses = bent(5, -0.1, -2.0)
    losses[9:] = [float("inf"), 0.0]
    study = write(tmp_path / "lab.zarr", {"out": patterns(*[1] * 11)}, losses=losses)
    assert study.ask(WAIST).measure("events").row(0, named=True)["loss_kink"] == EPOCHS[5]


def test_where_a_step_is_unknown_epochs_are_the_time():
    losses = [1.0, *(max(1.0, epoch / 8) ** -2.0 for epoch in EPOCHS[1:])]
    steps = [0, 100, None, 102, 103, 104, 105, 106, 107, 108, 109]
    history = training.History(EPOCHS, steps, losses, [{}] * len(EPOCHS))
    assert history.mark(broken_stick, losses) == ((8, 105), pytest.approx(1))


def depths(tmp_path):
    """Networks of one and of two hidden layers, two runs each; H(X) = 6 bits."""
    path = tmp_path / "lab.zarr"
    write(path, {"h1": patterns(5, 5, 5, 5), "out": patterns(0, 1, 1, 2)}, run="one")
    write(path, {"h1": patterns(5, 5, 5, 5), "out": patterns(0, 0, 1, 1)}, run="two")
    write(path, {"h1": patterns(6, 5, 5, 5), "h2": patterns(3, 4, 3, 3), "out": patterns(0, 1, 2, 2)}, run="three")
    return write(
        path, {"h1": patterns(5, 5, 5, 5), "h2": patterns(3, 3, 3, 3), "out": patterns(0, 2, 2, 2)}, run="four"
    )


def test_the_time_to_a_level_and_its_prediction(tmp_path):
    found = depths(tmp_path).ask(WAIST).measure("relaxation(level=2)")
    told = {row["run"]: row for row in found.iter_rows(named=True)}
    assert {run: (row["epoch"], row["step"], row["hidden_layers"]) for run, row in told.items()} == {
        "one": (3, 30, 1),
        "two": (None, None, 1),
        "three": (2, 20, 2),
        "four": (1, 10, 2),
    }
    assert told["one"]["predicted"] == pytest.approx(2 + 8)  # exp(ΔS) = 2^(bits forgotten): 6 → 5 → 2
    assert told["three"]["predicted"] == pytest.approx(2 + 4 + 2)  # 6 → 5 → 3 → 2
    assert (told["two"]["predicted"], told["two"]["i_ty"]) == (None, None)
    assert {row["layer"] for row in told.values()} == {"out"}
    assert {row["i_ty"] for row in told.values()} == {2.0, None}


def test_the_times_by_the_number_of_hidden_layers(tmp_path):
    asked = depths(tmp_path).ask(WAIST)
    one, two = asked.measure("relaxation(level=2, by=layers)").rows(named=True)
    assert (one["hidden_layers"], one["runs"], one["reached"], one["epoch_mean"]) == (1, 2, 1, 3)
    assert (one["epoch_std"], one["predicted_std"]) == (None, None)
    assert (two["hidden_layers"], two["runs"], two["reached"], two["epoch_mean"]) == (2, 2, 2, 1.5)
    assert two["epoch_std"] == pytest.approx(math.sqrt(0.5))
    assert two["predicted_mean"] == pytest.approx(8)
    never = asked.measure("relaxation(level=3, by=layers)")
    assert never["reached"].to_list() == [0, 0]
    assert never["epoch_mean"].is_null().all()


def test_another_layer_and_bits_whatever_the_unit(tmp_path):
    asked = depths(tmp_path).ask(WAIST)
    found = asked.measure("relaxation(level=2, layer=h1)")
    assert found["hidden_layers"].to_list() == [0] * 4
    assert dict(found.select("run", "predicted").rows())["three"] == pytest.approx(1)  # h1 forgets nothing at epoch 0
    assert asked.measure("relaxation(level=2)", unit="nats").equals(asked.measure("relaxation(level=2)"))


def test_where_channels_are_variables_their_mean_is_the_layer(tmp_path):
    channels = np.stack([patterns(6, 6, 6), patterns(4, 4, 4)], axis=2)  # (epoch, sample, channel, place)
    study = write(tmp_path / "lab.zarr", {"conv": channels, "out": patterns(1, 1, 2)})
    [row] = study.ask(WAIST, channels="mean").measure("relaxation(level=2)").rows(named=True)
    assert (row["epoch"], row["hidden_layers"]) == (2, 1)
    assert row["predicted"] == pytest.approx(2 + 8)  # 6 → (6 + 4) / 2 → 2
    assert study.ask(WAIST, channels="mean").measure("events")["channel"].to_list() == ["0", "1", "mean", "all"]


@given(st.lists(st.floats(0, 12), min_size=2, max_size=8))
def test_the_prediction_is_at_least_that_of_equal_steps(information):
    falling = sorted(information, reverse=True)
    layers = len(falling) - 1
    equal = layers * 2 ** ((falling[0] - falling[-1]) / layers)
    assert predicted(falling) >= equal * (1 - 1e-12)
    assert predicted([*falling, None]) is None


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("events(margin=0)", "margin is 0"),
        ("events(margin=1.5)", "margin is 1.5"),
        ("relaxation(level=0)", "give a level above 0, in bits"),
        ("relaxation(by=seeds)", "by run or layers"),
        ("relaxation(layer=deep)", "run 'run0' has no layer 'deep' in the selection; it has out"),
    ],
)
def test_bad_numbers_are_refused(tmp_path, what, message):
    study = write(tmp_path / "lab.zarr", {"out": patterns(1, 2)})
    with pytest.raises(UsageError, match=message):
        study.ask(WAIST).measure(what)


def test_without_labels_there_is_no_level(tmp_path):
    study = write(tmp_path / "lab.zarr", {"out": patterns(1, 2)}, y=None)
    with pytest.raises(UsageError, match="needs labels, and the samples have none"):
        study.ask(WAIST).measure("relaxation")
    assert len(study.ask(WAIST).measure("events")) == 1
