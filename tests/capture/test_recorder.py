import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from ibstore.capture import outbox
from ibstore.capture.provenance import Provenance
from ibstore.capture.recorder import Recorder
from ibstore.errors import (
    CaptureError,
    ResumeError,
    RunBusyError,
    RunExistsError,
    StoreError,
    UnknownNameError,
    UsageError,
    ValuesError,
    WriteError,
)
from ibstore.store import Store
from ibstore.store.writer import SegmentWriter

from .networks import Apply, Nested, Reused, dropout_net, epochs, hook_count, inplace_cnn, recorded

X4 = torch.randn(10, 4, generator=torch.Generator().manual_seed(1))
X8 = torch.randn(10, 8, generator=torch.Generator().manual_seed(2))
DIGITS = torch.rand(10, 1, 6, 6, generator=torch.Generator().manual_seed(3))
Y = np.arange(10) % 3


def record_once(store, model, **options):
    with Recorder(store, model, **options) as recorder:
        recorder.record(0)
    return recorder


def batched(function, x, size):
    """What a plain forward pass in batches of this size gives, without any of the code under test."""
    with torch.no_grad():
        return np.concatenate([function(x[start : start + size]).numpy() for start in range(0, len(x), size)])


# What is recorded


@pytest.mark.parametrize("size", [1, 3, 5, 10, 1000])
def test_a_recording_is_a_plain_forward_pass_bit_for_bit(store, size):
    model = inplace_cnn()
    record_once(store, model, layers=["0", "1", "3"], x=DIGITS, batch_size=size)
    for layer, end in (("0", 1), ("1", 2), ("3", 4)):
        expected = batched(lambda x, end=end: model[:end](x).clone(), DIGITS, size)
        np.testing.assert_array_equal(recorded(store, layer), expected)
    assert (recorded(store, "0") < 0).any(), "the in-place ReLU reached the convolution's record"


def test_every_epoch_is_recorded_as_the_network_was_then(store):
    model, expected = nn.Sequential(nn.Linear(4, 3)), []
    with Recorder(store, model, x=X4, batch_size=3) as recorder:
        for epoch in range(5):
            recorder.record(epoch)
            expected.append(batched(model, X4, 3))
            with torch.no_grad():
                model[0].weight += 1  # while the writer is still busy
    for epoch in range(5):
        np.testing.assert_array_equal(recorded(store, "0", epoch), expected[epoch])


def test_parts_of_tuples_and_mappings(store):
    model = Nested()
    record_once(store, model, layers=["out", "lstm[0]", "parts[hidden][1][0]"], x=X8, batch_size=4)
    sequence = batched(lambda x: model.lstm(x.reshape(-1, 2, 4))[0], X8, 4)
    np.testing.assert_array_equal(recorded(store, "lstm[0]"), sequence)
    np.testing.assert_array_equal(recorded(store, "parts[hidden][1][0]"), sequence[:, -1] - 1)
    np.testing.assert_array_equal(recorded(store, "out"), batched(model, X8, 4))


def test_calls_of_a_reused_module(store):
    model = Reused()
    record_once(store, model, layers=["relu:2", "relu:0"], x=X4)
    np.testing.assert_array_equal(recorded(store, "relu:0"), X4.relu().numpy())
    np.testing.assert_array_equal(recorded(store, "relu:2"), batched(model, X4, 10))


def test_no_list_records_every_layer(store):
    recorder = record_once(store, dropout_net(), x=X4)
    assert [(layer.name, layer.shape) for layer in recorder.layers] == [
        ("0", (8,)),
        ("1", (8,)),
        ("2", (8,)),
        ("4", (3,)),
    ]


def test_eval_mode_is_what_is_recorded(store):
    model = dropout_net().train()
    record_once(store, model, layers=["4"], x=X4)
    np.testing.assert_array_equal(recorded(store, "4"), batched(model.eval(), X4, 10))


@pytest.mark.parametrize(
    ("function", "dtype", "stored"),
    [
        (torch.Tensor.bfloat16, "float32", "float32"),
        (torch.Tensor.bfloat16, None, "float32"),
        (torch.Tensor.half, None, "float16"),
        (torch.Tensor.float, None, "float32"),
        (torch.Tensor.double, None, "float64"),
        (torch.Tensor.int, None, "int32"),
        (torch.Tensor.double, "float16", "float16"),
        (torch.Tensor.double, "float64", "float64"),
        (torch.Tensor.int, "float16", "int32"),
        (torch.Tensor.bool, "float32", "uint8"),
    ],
)
def test_dtypes_of_layers(store, function, dtype, stored):
    recorder = record_once(store, nn.Sequential(Apply(function)), layers=["0"], x=X4, dtype=dtype)
    assert recorder.layers[0].dtype == stored
    np.testing.assert_array_equal(recorded(store, "0"), function(X4).double().numpy().astype(stored))


def test_one_number_a_sample(store):
    record_once(store, nn.Sequential(Apply(lambda x: x.sum(1))), layers=["0"], x=X4)
    np.testing.assert_array_equal(recorded(store, "0"), X4.sum(1).numpy())


def test_infinities_and_nan_are_recorded_as_they_are(store):
    x = torch.tensor([[float("inf")], [float("-inf")], [float("nan")]])
    record_once(store, nn.Sequential(nn.Identity()), layers=["0"], x=x, dtype="float16")
    np.testing.assert_array_equal(recorded(store, "0"), x.half().numpy())


def test_the_probe_set_is_kept_with_labels_and_ids(store):
    ids = np.arange(10) * 7
    record_once(store, nn.Sequential(nn.Linear(4, 3)), x=X4.numpy(), y=torch.from_numpy(Y), sample=ids, split="probe")
    run = Store.open(store).run("run0")
    probe = run.probe(run.manifest.split("probe"))
    np.testing.assert_array_equal(np.concatenate(list(probe.x_blocks())), X4.numpy())
    np.testing.assert_array_equal(probe.labels(), Y)
    np.testing.assert_array_equal(probe.samples(), ids)


def test_tensors_and_arrays_are_the_same_data(store):
    model = nn.Sequential(nn.Linear(4, 3))
    record_once(store, model, x=X4, y=Y, run="tensor")
    record_once(store, model, x=X4.numpy(), y=Y.tolist(), run="array")
    first, second = (Store.open(store).run(name).manifest.splits for name in ("tensor", "array"))
    assert first == second


def test_the_manifest_says_what_a_recording_hangs_on(store):
    model = Nested()
    provenance = Provenance("mine", 3, "mse", "SGD(lr=1)", {"width": 5})
    record_once(store, model, layers=["out", "lstm[0]"], x=X8, run="a run", batch_size=4, provenance=provenance)
    manifest = Store.open(store).run("a run").manifest
    assert [layer.name for layer in manifest.layers] == ["lstm[0]", "out"]
    assert manifest.module == repr(model)
    assert (manifest.recipe, manifest.seed, manifest.loss, manifest.optimizer) == ("mine", 3, "mse", "SGD(lr=1)")
    assert (manifest.mode, manifest.device, manifest.probe_batch) == ("eval", "cpu", 4)
    assert manifest.threads == torch.get_num_threads()
    assert manifest.settings == {"width": 5}
    assert set(manifest.versions) == {"ibstore", "python", "torch", "numpy", "zarr"}


# Metrics


def test_metrics_and_steps_go_into_the_commit_record(store):
    with Recorder(store, nn.Sequential(nn.Linear(4, 3)), x=X4, split="a") as recorder:
        recorder.record(0)
        recorder.record(2, step=600, loss=torch.tensor(0.5), b={"loss": 2})
    (segment,) = Store.open(store).run("run0").segments
    assert segment.record.epochs == (0, 2)
    assert segment.record.steps == (None, 600)
    assert segment.record.metrics == ({}, {"a": {"loss": 0.5}, "b": {"loss": 2.0}})


def test_measured_metrics_are_means_over_the_probe_set(store):
    def measure(output, labels):
        return {"loss": functional.cross_entropy(output, labels), "right": (output.argmax(1) == labels).double().mean()}

    model = nn.Sequential(nn.Linear(4, 3))
    with Recorder(store, model, x=X4, y=Y, batch_size=4, measure=measure) as recorder:
        found = recorder.record(0, test={"loss": 7})
        second = recorder.record(1, loss=9)
        assert second["train"]["loss"] == 9
    with torch.no_grad():
        output, labels = model(X4), torch.from_numpy(Y)
    assert found["train"]["loss"] == pytest.approx(functional.cross_entropy(output, labels).item(), rel=1e-6)
    assert found["train"]["right"] == pytest.approx((output.argmax(1) == labels).double().mean().item())
    assert found["test"] == {"loss": 7}
    assert Store.open(store).run("run0").segments[0].record.metrics == (found, second)


def test_a_metric_that_is_no_number_is_refused_and_the_epoch_stays_free(store):
    with Recorder(store, nn.Sequential(nn.Linear(4, 3)), x=X4) as recorder:
        with pytest.raises(CaptureError, match="metric 'loss'"):
            recorder.record(0, loss="low")
        recorder.record(0, loss=0.1)
    assert epochs(store) == [0]


# Nothing is left behind in the network


def test_each_module_keeps_its_own_mode(store):
    model = dropout_net().train()
    model[1].eval()
    before = [module.training for module in model.modules()]
    with Recorder(store, model, x=X4) as recorder:
        assert [module.training for module in model.modules()] == before
        recorder.record(0)
    assert [module.training for module in model.modules()] == before
    assert True in before
    assert False in before


def test_hooks_modes_and_gradients_come_back_after_a_failure(store):
    model = nn.Sequential(nn.Linear(4, 4), Apply(torch.relu)).train()
    with Recorder(store, model, x=X4) as recorder:
        model[1].function = fail
        with pytest.raises(ZeroDivisionError):
            recorder.record(0)
        assert model.training
        assert model[1].training
        assert torch.is_grad_enabled()
        assert hook_count(model) == 0


def test_hooks_are_gone_after_recording_and_after_a_refusal(store):
    model = Reused()
    record_once(store, model, x=X4)
    assert hook_count(model) == 0
    with pytest.raises(CaptureError):
        Recorder(store, model, layers=["relu"], x=X4)
    assert hook_count(model) == 0


def fail(_):
    raise ZeroDivisionError


def trained(store):
    """Weights after a training with dropout and batch norm, recorded where a store is given."""
    model = dropout_net().train()
    optimizer = torch.optim.Adam(model.parameters())
    torch.manual_seed(5)
    recorder = None if store is None else Recorder(store, model, x=X4, batch_size=3)
    for epoch in range(4):
        for rows in torch.randperm(10).split(5):
            optimizer.zero_grad()
            functional.cross_entropy(model(X4[rows]), torch.from_numpy(Y)[rows]).backward()
            optimizer.step()
        if recorder is not None:
            recorder.record(epoch)
    if recorder is not None:
        recorder.close()
    return model.state_dict()


def test_training_is_the_same_bit_for_bit_with_and_without_recording(store):
    plain, watched = trained(None), trained(store)
    assert plain.keys() == watched.keys()
    for name, value in plain.items():
        assert torch.equal(value, watched[name]), name


def test_random_layers_leave_the_random_numbers_alone(store):
    model = nn.Sequential(Apply(lambda x: functional.dropout(x, training=True)))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    record_once(store, model, layers=["0"], x=X4)
    assert torch.equal(torch.rand(3), expected)


def test_what_a_network_caches_stays_fit_for_training(store):
    class Caching(nn.Module):
        scale = None

        def forward(self, x):
            if self.scale is None:
                self.scale = torch.full((4,), 2.0) * 1
            return x * self.scale

    model = nn.Sequential(nn.Linear(4, 4), Caching())
    record_once(store, model, x=X4)
    model(X4).sum().backward()
    assert model[0].weight.grad is not None


# Mixed precision


def precision_during(store, options, outside):
    """Whether autocast is on within a pass, of which type, and whether its cache is used, and the same after it."""
    seen = []

    def note(x):
        seen.append(torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"))
        seen.append(torch.is_autocast_enabled("cpu") and torch.is_autocast_cache_enabled())
        return x + 1

    model = nn.Sequential(nn.Linear(4, 4), Apply(note))
    with Recorder(store, model, x=X4, layers=["0"], **options) as recorder, outside:
        recorder.record(0)
        del seen[:-2]
        note(X4)
    return seen


def test_a_pass_has_the_precision_that_is_asked_for_and_the_training_keeps_its_own(store):
    inside = torch.autocast("cpu", torch.bfloat16)
    assert precision_during(store, {}, nullcontext()) == [False, False, False, False]
    assert precision_during(store, {"run": "a"}, inside) == [False, False, torch.bfloat16, True]
    assert precision_during(store, {"run": "b", "autocast": torch.float16}, inside) == [
        torch.float16,
        False,
        torch.bfloat16,
        True,
    ]
    modes = [Store.open(store).run(name).manifest.mode for name in ("run0", "a", "b")]
    assert modes == ["eval", "eval", "eval, autocast float16"]


def test_a_run_does_not_go_on_in_another_precision(store):
    model = nn.Sequential(nn.Linear(4, 4))
    record_once(store, model, x=X4, autocast=torch.bfloat16)
    assert recorded(store, "0").dtype == np.float32
    with pytest.raises(ResumeError, match="mode is 'eval, autocast bfloat16' in the store and 'eval' here"):
        Recorder(store, model, x=X4, resume=True)


# Refused early


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        (["ou"], UnknownNameError, r"no module and no tap 'ou'; did you mean out\?"),
        (["unused"], CaptureError, "never fires"),
        (["lstm"], CaptureError, r"puts out a tuple, no tensor; select one of its tensors: 'lstm\[0\]' \(10, 2, 3\)"),
        (["parts[loss]"], CaptureError, r"puts out shape \(\) for a batch of 10 samples"),
        (["lstm["], UsageError, "cannot be read"),
        ([], UsageError, "at least one layer"),
    ],
)
def test_wrong_layers_are_refused_before_anything_is_written(store, layers, error, message):
    with pytest.raises(error, match=message):
        Recorder(store, Nested(), layers=layers, x=X8)
    assert not store.exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"x": X8}, CaptureError, r"the network fails on the first batch of x, \(10, 8\) torch.float32 on cpu"),
        ({"x": X4.double()}, CaptureError, r"float64 on cpu \(RuntimeError"),
        ({"x": X4[:0]}, CaptureError, "probe set is empty"),
        ({"x": 3}, CaptureError, "x is a single number"),
        ({"x": X4, "y": Y[:3]}, CaptureError, r"y has shape \(3,\) where x has 10 samples"),
        ({"x": X4, "y": Y + 0.5}, ValuesError, "label must be an integer"),
        ({"x": X4, "sample": Y}, CaptureError, "a sample id stands twice"),
        ({"x": X4, "batch_size": 0}, UsageError, "batch_size is 0; give an integer from 1"),
        ({"x": X4, "batch_size": 2.5}, UsageError, "batch_size is 2.5"),
        ({"x": X4, "dtype": "float8"}, UsageError, "choose one of float16, bfloat16, float32, float64"),
        ({"x": X4, "device": "nonsense"}, UsageError, "device 'nonsense' cannot be used here"),
        ({"x": X4, "autocast": torch.float32}, UsageError, "autocast is torch.float32; give torch.bfloat16"),
        ({"x": X4, "autocast": "bfloat16"}, UsageError, "autocast is 'bfloat16'; give torch.bfloat16"),
        ({"x": X4, "measure": max}, UsageError, "give y"),
        ({"x": X4, "y": Y, "measure": 3}, UsageError, "measure is 3; give a function"),
        ({"x": X4, "epochs": -1}, UsageError, "epochs is -1"),
        ({"x": X4, "epochs": "a"}, UsageError, "epochs is 'a'"),
        ({"x": X4, "keep": [1]}, UsageError, r"keep is \[1\]; give objects by name"),
        ({"x": X4, "run": 3}, UsageError, "a name is 3; give text"),
        ({"x": X4, "run": ""}, UsageError, "name is empty"),
        ({"x": X4, "split": ""}, UsageError, "name is empty"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(store, options, error, message):
    with pytest.raises(error, match=message):
        Recorder(store, nn.Sequential(nn.Linear(4, 3)), **options)
    assert not store.exists()
    with pytest.raises(UsageError, match="store is None; give its path or URL"):
        Recorder(None, nn.Sequential(nn.Linear(4, 3)), x=X4)


class Shifted(nn.Sequential):
    """Adds what a second layer says of one constant row."""

    def forward(self, x):
        return self[0](x) + self[1](torch.ones(1, 4))


def test_a_layer_without_a_row_a_sample_is_told_and_not_recorded(store):
    told, fact = [], r"layer '1' puts out shape \(1, 3\) for a batch of 10 samples, and is not recorded"
    with Recorder(store, Shifted(nn.Linear(4, 3), nn.Linear(4, 3)), x=X4, emit=told.append) as recorder:
        assert [layer.name for layer in recorder.layers] == ["0"]
    assert re.match(fact, told[0].detail)
    with (
        pytest.warns(UserWarning, match=fact) as warned,
        Recorder(store, Shifted(nn.Linear(4, 3), nn.Linear(4, 3)), x=X4, run="unheard"),
    ):
        pass
    assert [Path(each.filename).name for each in warned] == ["test_recorder.py"]


def test_settings_that_json_cannot_hold_are_refused():
    with pytest.raises(UsageError, match="settings cannot be written as JSON"):
        Provenance(settings={"path": Path("x")})
    with pytest.raises(UsageError, match="settings cannot be written as JSON"):
        Provenance(settings={"lr": float("nan")})


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(StoreError, match="is no ibstore store"):
        Recorder(tmp_path, nn.Sequential(nn.Linear(4, 3)), x=X4)


# Refused while recording


@pytest.mark.parametrize("epoch", [-1, 1.0, True, None, "1", torch.tensor(1)])
def test_an_epoch_is_an_integer_from_0(store, epoch):
    with Recorder(store, nn.Sequential(nn.Linear(4, 3)), x=X4) as recorder:
        with pytest.raises(CaptureError, match=r"epoch is .*; give an integer from 0"):
            recorder.record(epoch)
        with pytest.raises(CaptureError, match="step is -5"):
            recorder.record(0, step=-5)
    assert epochs(store) == []


@pytest.mark.parametrize(("epoch", "step"), [(10**10, None), (10**400, None), (0, 2**63)])
def test_an_epoch_has_a_number_that_a_store_can_hold(store, epoch, step):
    with Recorder(store, nn.Sequential(nn.Linear(4, 3)), x=X4) as recorder:
        with pytest.raises(CaptureError, match="is too large; an epoch may be up to 9999999999"):
            recorder.record(epoch, step)
        recorder.record(10**10 - 1, 2**63 - 1)
    assert epochs(store) == [10**10 - 1]


def test_a_layer_without_values_is_refused(store):
    empty = nn.Sequential(nn.Linear(4, 3), nn.Flatten(1), nn.AdaptiveAvgPool1d(0))
    with pytest.raises(CaptureError, match=r"layer '2' puts out no values, \(.*0\); record another layer"):
        Recorder(store, empty, x=X4, layers=["0", "2"])
    assert not store.exists()


def test_epochs_grow_and_are_recorded_once(store):
    with Recorder(store, nn.Sequential(nn.Linear(4, 3)), x=X4) as recorder:
        recorder.record(np.int64(3), step=np.int64(7))
        with pytest.raises(CaptureError, match="epoch 3 is recorded already"):
            recorder.record(3)
        with pytest.raises(CaptureError, match="epoch 2 comes after epoch 3"):
            recorder.record(2)
        recorder.record(10)
    assert epochs(store) == [3, 10]


def test_nothing_is_recorded_after_the_end(store):
    recorder = record_once(store, nn.Sequential(nn.Linear(4, 3)), x=X4)
    recorder.close()
    with pytest.raises(CaptureError, match="the recorder is closed"):
        recorder.record(1)


def change_shape(x):
    return x[:, :2]


def change_kind(x):
    return x.long()


@pytest.mark.parametrize(("function", "found"), [(change_shape, r"float32 \(4, 2\)"), (change_kind, r"int64 \(4, 4\)")])
def test_a_layer_that_changes_is_refused_and_the_epoch_stays_free(store, function, found):
    layer = Apply(lambda x: x + 0)
    with Recorder(store, nn.Sequential(layer), layers=["0"], x=X4, batch_size=4) as recorder:
        recorder.record(0)
        before, layer.function = layer.function, function
        with pytest.raises(CaptureError, match=rf"layer '0' puts out {found} at epoch 1, but float32 \(4, 4\) when"):
            recorder.record(1)
        layer.function = before
        recorder.record(1)
    assert epochs(store) == [0, 1]


def test_a_value_beyond_float16_is_refused_and_what_was_recorded_stays(store, one_by_one):
    model = nn.Sequential(nn.Identity(), Apply(lambda x: x))
    x = torch.ones(10, 2)
    with Recorder(store, model, layers=["0", "1"], x=x, batch_size=4, dtype="float16") as recorder:
        recorder.record(0)
        model[1].function = lambda x: x * -70000
        with pytest.raises(CaptureError) as refusal:
            recorder.record(1)
        model[1].function = lambda x: x * 2
        recorder.record(2)
    assert str(refusal.value) == (
        "layer '1' at epoch 1 cannot be rounded: it has the value -70000, beyond the largest float16 (65504); record "
        "under another run name without dtype (--dtype), or with a wider one"
    )
    assert epochs(store) == [0, 2]
    np.testing.assert_array_equal(recorded(store, "1", 2), 2 * x.numpy())
    assert segment_folders(store) == ["0000000000", "0000000002"]


def segment_folders(store, run="run0"):
    return sorted(path.name for path in (store / "runs" / run / "segments").iterdir() if path.is_dir())


# Failures and leftovers


def test_a_failing_training_keeps_whole_epochs_and_its_own_error(store, one_by_one):
    model = nn.Sequential(Apply(lambda x: x + 0))

    def fail_in_second_batch(x):
        if len(x) < 4:
            raise ZeroDivisionError
        return x + 0

    def body():
        with Recorder(store, model, layers=["0"], x=X4[:7], batch_size=4) as recorder:
            recorder.record(0)
            recorder.record(1)
            model[0].function = fail_in_second_batch
            recorder.record(2)

    with pytest.raises(ZeroDivisionError):
        body()
    assert epochs(store) == [0, 1]
    assert segment_folders(store) == ["0000000000", "0000000001"]


def record_epochs(store, count, then=None):
    with Recorder(store, nn.Sequential(nn.Linear(4, 3)), x=X4) as recorder:
        for epoch in range(count):
            recorder.record(epoch)
        if then is not None:
            raise then


@pytest.mark.parametrize("count", [2, 200])
def test_an_error_of_the_writer_comes_back_as_it_was(store, monkeypatch, one_by_one, count):
    """At the end when there are few epochs, while recording when there are more than can wait."""
    error, commit = WriteError("no space left"), SegmentWriter.commit

    def fail_at_1(self, *arguments):
        if self.epochs == (1,):
            raise error
        return commit(self, *arguments)

    monkeypatch.setattr(SegmentWriter, "commit", fail_at_1)
    with pytest.raises(WriteError) as caught:
        record_epochs(store, count)
    assert caught.value is error
    assert epochs(store) == [0]
    assert segment_folders(store) == ["0000000000"]


def test_the_trainings_own_error_wins_over_the_writers(store, monkeypatch):
    def fail_always(self, *arguments):
        raise WriteError("no space left")

    monkeypatch.setattr(SegmentWriter, "commit", fail_always)
    with pytest.raises(KeyError) as caught:
        record_epochs(store, 1, KeyError("mine"))
    assert caught.value.__notes__ == ["and the recorder could not be closed: no space left"]


def test_one_thread_writes_and_ends_with_the_recorder(store):
    with Recorder(store, nn.Sequential(nn.Linear(4, 3)), x=X4) as recorder:
        recorder.record(0)
        assert [thread.name for thread in threading.enumerate()].count("ibstore-writer") == 1
    assert "ibstore-writer" not in [thread.name for thread in threading.enumerate()]


def test_recording_waits_for_a_slow_writer_and_loses_nothing(store, monkeypatch, one_by_one):
    """The queue is short here; the writer is held until the recording has run into it."""
    asked = []
    monkeypatch.setattr(outbox, "queue_length", lambda task_bytes, _free: asked.append(task_bytes) or 2)
    gate, returned = threading.Event(), threading.Event()
    append = SegmentWriter.append

    def slow_append(self, *arguments):
        assert gate.wait(30)
        append(self, *arguments)

    monkeypatch.setattr(SegmentWriter, "append", slow_append)
    model = nn.Sequential(nn.Linear(4, 3))
    with Recorder(store, model, x=X4, batch_size=1) as recorder:
        recording = threading.Thread(target=lambda: (recorder.record(0), returned.set()), daemon=True)
        recording.start()
        assert not returned.wait(0.2)  # ten batches do not fit
        gate.set()
        assert returned.wait(30)
    assert asked == [3 * 4]
    np.testing.assert_array_equal(recorded(store, "0"), batched(model, X4, 1))


def test_a_run_with_epochs_is_refused_and_replaced_by_force(store):
    model, notices = nn.Sequential(nn.Linear(4, 3)), []
    record_once(store, model, x=X4)
    with pytest.raises(RunExistsError, match="run 'run0' is already in the store with 1 epoch "):
        Recorder(store, model, x=X4)
    assert epochs(store) == [0]
    with Recorder(store, model, x=X4, force=True, emit=notices.append) as recorder:
        recorder.record(5)
    assert epochs(store) == [5]
    assert [event.detail for event in notices if event.detail.startswith("removing")] == [
        "removing run 'run0' (1 epoch)"
    ]


def test_a_run_is_written_by_one_recorder_at_a_time(store):
    model = nn.Sequential(nn.Linear(4, 3))
    with Recorder(store, model, x=X4), pytest.raises(RunBusyError):
        Recorder(store, model, x=X4)
    record_once(store, model, x=X4)


def test_an_uncommitted_segment_is_invisible_and_swept(store):
    model = nn.Sequential(nn.Linear(4, 3))
    with Recorder(store, model, x=X4) as recorder:
        recorder.record(0)
        leave_behind(store, 1)
        recorder.record(1)
    np.testing.assert_array_equal(recorded(store, "0", 1), batched(model, X4, 10))
    leave_behind(store, 2)
    assert epochs(store) == [0, 1]
    record_once(store, model, x=X4, force=True)
    assert segment_folders(store) == ["0000000000"]


def leave_behind(store, epoch):
    """What a writer leaves that is killed before its commit record."""
    rubbish = store / "runs" / "run0" / "segments" / f"{epoch:010d}" / "train" / "0"
    rubbish.mkdir(parents=True)
    (rubbish / "zarr.json").write_text("{")


KILLED = """
import os, signal, sys, torch
from ibstore.capture import Recorder
from ibstore.store import SegmentWriter
from ibstore.store.format import layout

layout.SEGMENT_BYTES = 1  # one epoch a segment
commit = SegmentWriter.commit

def killed(self, *arguments):
    if self.epochs == (1,):
        os.kill(os.getpid(), signal.SIGKILL)
    return commit(self, *arguments)

SegmentWriter.commit = killed
with Recorder(sys.argv[1], torch.nn.Sequential(torch.nn.Linear(4, 3)), x=torch.ones(10, 4)) as recorder:
    for epoch in range(3):
        recorder.record(epoch)
"""


def test_a_killed_recorder_loses_the_epoch_it_was_writing_alone(store):
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(store)], env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert epochs(store) == [0]
    assert recorded(store, "0").shape == (10, 3)
    assert segment_folders(store) == ["0000000000", "0000000001"]
    record_once(store, nn.Sequential(nn.Linear(4, 3)), x=X4, force=True)
    assert segment_folders(store) == ["0000000000"]


def test_progress_is_told_in_samples(store):
    seen = []
    record_once(store, nn.Sequential(nn.Linear(4, 3)), x=X4, batch_size=4, emit=seen.append)
    assert [(event.stage, event.done, event.total, event.detail) for event in seen if not event.is_notice] == [
        ("record", 4, 10, "epoch 0"),
        ("record", 8, 10, "epoch 0"),
        ("record", 10, 10, "epoch 0"),
    ]


def test_the_same_recording_writes_the_same_bytes(tmp_path):
    trees = []
    for name in ("a", "b"):
        record_once(tmp_path / name, inplace_cnn(), x=DIGITS, y=Y, batch_size=4)
        files = (path for path in (tmp_path / name).rglob("*") if path.is_file())
        trees.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
    assert trees[0] == trees[1]
    assert any(json.loads(content).get("attributes") for name, content in trees[0].items() if name.endswith(".json"))


def test_a_failing_constructor_lets_the_run_go(store, monkeypatch):
    def fail_to_start(*arguments):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "BackgroundWriter", fail_to_start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            Recorder(store, nn.Sequential(nn.Linear(4, 3)), x=X4)
    record_once(store, nn.Sequential(nn.Linear(4, 3)), x=X4)
    assert epochs(store) == [0]


@pytest.mark.parametrize(
    ("dynamics", "message"),
    [
        (3, "dynamics is 3; give numbers by variant, layer and quantity"),
        ({"epoch": {"0": {"snr": "x"}}}, "metric 'snr' is 'x', which is no number"),
        ({"epoch": {"0": 1.0}}, "dynamics 'epoch' of layer '0' is 1.0; give numbers by variant"),
    ],
)
def test_dynamics_that_are_no_numbers_cost_no_epoch(store, dynamics, message):
    with Recorder(store, torch.nn.Sequential(torch.nn.Linear(4, 3)), x=torch.zeros(5, 4)) as recorder:
        recorder.record(0)
        with pytest.raises(CaptureError, match=message):
            recorder.record(1, dynamics=dynamics)
        recorder.record(1, dynamics={"epoch": {"0": {"snr": torch.tensor(2.0)}}})
    assert Store.open(store).run("run0").epochs == [0, 1]
