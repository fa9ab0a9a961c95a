"""Recording within Hugging Face's trainer, the real one, with a tiny BERT that is made here."""

# ruff: noqa: ARG002  # hooks are told more than they look at
from ibstore.capture.callbacks.transformers import TransformersRecorder  # first: it lets any torchvision be imported

# isort: split
import importlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from ibstore.capture.arguments import Probe
from ibstore.errors import RunExistsError, UsageError
from ibstore.store import Store

from .networks import epochs, hook_count, recorded

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*pin_memory.* argument is set as true but no accelerator"  # the trainer's default, for GPUs
)

GENERATOR = torch.Generator().manual_seed(1)
TOKENS = torch.randint(0, 30, (24, 6), generator=GENERATOR)
MASK = (torch.rand(24, 6, generator=GENERATOR) < 0.8).long().index_fill(1, torch.tensor([0]), 1)
Y = torch.arange(24) % 3
PROBE = {"input_ids": TOKENS[:10], "attention_mask": MASK[:10]}
LAYERS = ["bert.encoder.layer.0.attention.output", "bert.pooler", "classifier"]


class Sentences(Dataset):
    """Four batches of six an epoch."""

    def __len__(self):
        return len(TOKENS)

    def __getitem__(self, row):
        return {"input_ids": TOKENS[row], "attention_mask": MASK[row], "labels": Y[row]}


def bert():
    torch.manual_seed(0)
    sizes = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertForSequenceClassification(
        BertConfig(**sizes, intermediate_size=16, max_position_embeddings=8, num_labels=3)
    )


class Keep(TrainerCallback):
    """Keeps the weights when an epoch, or a step, is over: an oracle that knows nothing of recorders."""

    def __init__(self):
        self.epochs, self.steps = {}, {}

    def weights(self, model):
        return {name: value.clone() for name, value in model.state_dict().items()}

    def on_train_begin(self, args, state, control, model=None, **_):
        self.steps[state.global_step] = self.weights(model)
        if state.global_step % 4 == 0:
            self.epochs[state.global_step // 4] = self.weights(model)

    def on_step_end(self, args, state, control, model=None, **_):
        self.steps[state.global_step] = self.weights(model)

    def on_epoch_end(self, args, state, control, model=None, **_):
        self.epochs[len(self.epochs)] = self.weights(model)


@pytest.fixture
def fit(tmp_path):
    """Train, with nothing that is shown or reported."""

    def fit(model, *callbacks, resume=None, **options):
        quietly = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "logging_strategy": "no"}
        size = {"per_device_train_batch_size": 6, "num_train_epochs": 3, "learning_rate": 0.05, "save_strategy": "no"}
        arguments = TrainingArguments(tmp_path / "out", **{**quietly, **size, "seed": 5, **options})
        trainer = Trainer(model, arguments, train_dataset=Sentences(), eval_dataset=Sentences())
        for callback in callbacks:
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return fit


def plain(weights, x=None):
    """What a plain forward pass of the network with these weights puts out of each layer."""
    model = bert().eval()
    model.load_state_dict(weights)
    said = {}
    for layer in LAYERS:
        model.get_submodule(layer).register_forward_hook(
            lambda _m, _i, output, layer=layer: said.update({layer: output})
        )
    with torch.no_grad():
        model(**(x or PROBE))
    return said


def assert_recorded(store, kept, points):
    assert epochs(store) == points
    for point in points:
        for layer, expected in plain(kept[point]).items():
            np.testing.assert_array_equal(recorded(store, layer, point), expected.float().numpy())


def recorder(store, **options):
    return TransformersRecorder(store, **{"x": PROBE, "layers": LAYERS, **options})


def test_every_epoch_is_a_plain_forward_pass_bit_for_bit(store, fit):
    keep, model = Keep(), bert()
    fit(model, keep, recorder(store))
    assert_recorded(store, keep.epochs, [0, 1, 2, 3])
    run = Store.open(store).run("run0")
    assert [step for segment in run.segments for step in segment.record.steps] == [0, 4, 8, 12]
    np.testing.assert_array_equal(np.concatenate(list(run.probe(run.manifest.split("train")).x_blocks())), TOKENS[:10])
    assert hook_count(model) == 0


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        ("every:2", [0, 2, 3]),
        ("every:5@steps", [0, 5, 10, 12]),
        ("log:4", [0, 1, 2, 5, 12]),
        ("list:1,2@epochs", [0, 1, 2, 3]),
    ],
)
def test_schedules(store, fit, schedule, points):
    keep = Keep()
    fit(bert(), keep, recorder(store, schedule=schedule))
    assert_recorded(store, keep.steps if "log" in schedule or "steps" in schedule else keep.epochs, points)


def test_steps_are_the_optimizers(store, fit):
    keep = Keep()
    fit(bert(), keep, recorder(store, schedule="every:1@steps"), gradient_accumulation_steps=2)
    assert_recorded(store, keep.steps, list(range(7)))


@pytest.mark.parametrize("bf16", [False, True])
def test_training_is_the_same_with_and_without(store, fit, bf16):
    plain_keep, keep = Keep(), Keep()
    fit(bert(), plain_keep, bf16=bf16)
    fit(bert(), keep, recorder(store, schedule="every:1@steps"), bf16=bf16)
    assert keep.steps.keys() == plain_keep.steps.keys()
    for step, weights in plain_keep.steps.items():
        for name, value in weights.items():
            assert torch.equal(keep.steps[step][name], value), (step, name)


def test_mixed_precision_is_recorded_under_autocast(store, fit):
    keep = Keep()
    fit(bert(), keep, recorder(store), bf16=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert_recorded(store, keep.epochs, [0, 1, 2, 3])
    assert "bfloat16" in Store.open(store).run("run0").manifest.mode


def test_metrics_are_measured_at_the_recorded_weights(store, fit):
    def measure(output, y):
        return {"loss": functional.cross_entropy(output.logits, y).item()}

    keep = Keep()
    fit(bert(), keep, recorder(store, y=Y[:10], measure=measure))
    rows = [row for segment in Store.open(store).run("run0").segments for row in segment.record.metrics]
    for epoch, row in enumerate(rows):
        logits = plain(keep.epochs[epoch])["classifier"]
        assert row["train"]["loss"] == pytest.approx(functional.cross_entropy(logits, Y[:10]).item(), rel=1e-6)


def test_several_splits(store, fit):
    keep = Keep()
    halves = {
        split: {name: tensor[rows] for name, tensor in PROBE.items()}
        for split, rows in {"train": slice(0, 4), "test": slice(4, 10)}.items()
    }
    fit(
        bert(),
        keep,
        TransformersRecorder(store, probes={split: Probe(x) for split, x in halves.items()}, layers=LAYERS),
    )
    for split, x in halves.items():
        np.testing.assert_array_equal(
            recorded(store, "classifier", 2, split=split), plain(keep.epochs[2], x)["classifier"].numpy()
        )


# How a training ends, and goes on


def test_a_training_that_ends_within_an_epoch(store, fit):
    keep = Keep()
    fit(bert(), keep, recorder(store), max_steps=6)
    assert_recorded(store, keep.epochs, [0, 1, 2])


@pytest.mark.parametrize("schedule", ["every:10", "every:30@steps"])
def test_the_last_network_is_recorded_and_not_the_best_that_is_put_back(store, fit, schedule):
    keep, model = Keep(), bert()
    stop = EarlyStoppingCallback(early_stopping_patience=1, early_stopping_threshold=100.0)
    saving = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    fit(model, keep, stop, recorder(store, schedule=schedule), num_train_epochs=20, **saving)
    kept = keep.steps if "steps" in schedule else keep.epochs
    assert_recorded(store, kept, [0, max(kept)])
    assert max(keep.epochs) < 20


def test_a_training_goes_on_from_a_checkpoint(store, fit, tmp_path):
    first, second = Keep(), Keep()
    saving = {"save_strategy": "epoch", "lr_scheduler_type": "constant"}
    fit(bert(), first, recorder(store), num_train_epochs=2, **saving)
    assert epochs(store) == [0, 1, 2]
    second.epochs = dict(first.epochs)
    fit(bert(), second, recorder(store), num_train_epochs=4, resume=tmp_path / "out" / "checkpoint-8", **saving)
    assert_recorded(store, second.epochs, [0, 1, 2, 3, 4])
    with pytest.raises(RunExistsError):
        fit(bert(), recorder(store))


def test_a_checkpoint_from_within_an_epoch(store, fit, tmp_path):
    keep = Keep()
    fit(bert(), save_strategy="steps", save_steps=6)
    keep.epochs = {0: {}, 1: {}}
    fit(bert(), keep, recorder(store), resume=tmp_path / "out" / "checkpoint-6")
    assert_recorded(store, keep.epochs, [2, 3])


class Failing(TrainerCallback):
    def on_step_begin(self, args, state, control, **_):
        if state.global_step == 9:
            raise RuntimeError("no more")


def test_an_exception_leaves_what_was_recorded_and_no_hooks(store, fit):
    model, keep = bert(), Keep()
    with pytest.raises(RuntimeError, match="no more"), recorder(store) as recording:
        fit(model, keep, recording, Failing())
    assert_recorded(store, keep.epochs, [0, 1, 2])
    assert hook_count(model) == 0


def test_a_block_without_an_exception_closes_too(store, fit):
    with recorder(store) as recording:
        fit(bert(), recording)
    assert epochs(store) == [0, 1, 2, 3]
    recording.close()


def test_other_processes_record_nothing(store):
    recording = recorder(store, schedule="log:5")
    state = type("State", (), {"is_world_process_zero": False, "global_step": 1, "epoch": 1.0})
    recording.on_train_begin(None, state, None, model=nn.Identity())
    recording.on_step_end(None, state, None)
    recording.on_epoch_end(None, state, None)
    recording.on_log(None, state, None, logs={"train_runtime": 1.0})
    recording.on_train_end(None, state, None)
    assert not store.exists()


def test_what_cannot_be_meant_is_refused(store, fit):
    with pytest.raises(UsageError, match="a callback takes no 'epochs' for its recorder"):
        recorder(store, epochs=3)
    with pytest.raises(UsageError, match="schedule 'often' cannot be read"):
        recorder(store, schedule="often")
    with pytest.raises(UsageError, match="has point 9, but the training ends after 3 epochs"):
        fit(bert(), recorder(store, schedule="list:9"))
    assert not store.exists()


# What is imported


def test_the_library_is_imported_by_its_callback_alone():
    code = "import sys, ibstore.capture.callbacks.following; print('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_without_the_library_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "ibstore.capture.callbacks.transformers")
    with pytest.raises(UsageError, match=r"TransformersRecorder needs transformers; pip install 'ibstore\[tr"):
        importlib.import_module("ibstore.capture.callbacks.transformers")
