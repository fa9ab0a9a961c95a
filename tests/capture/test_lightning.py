"""Recording within Lightning's trainer, the real one, with tiny networks."""

from ibstore.capture.callbacks.lightning import LightningRecorder  # first: it lets any torchvision be imported

# isort: split
import importlib
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from ibstore.capture.arguments import Probe
from ibstore.errors import RunExistsError, UnknownNameError, UsageError
from ibstore.store import Store

from .networks import epochs, hook_count, recorded

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        ".*does not have many workers",  # speed of loading, which is no matter here
        ".*is smaller than the logging interval",  # nothing is logged to anywhere
        ".*`isinstance.treespec, LeafSpec.` is deprecated",  # inside Lightning, with this torch
        "Checkpoint directory .* exists and is not empty",  # it goes on from there
        "Be aware that when using `ckpt_path`, callbacks",  # what has saved it is not needed again
        ".*found in progress when resumed|.*You're resuming from a checkpoint that ended before",  # meant
    )
]

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(1))
Y = torch.arange(24) % 3
PROBE = X[:10]


class Digits(LightningModule):
    """Dropout and batch statistics: modes and random numbers matter. Four batches an epoch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3))
        self.validated = 0

    def forward(self, x):
        return self.model(x)

    def training_step(self, batch, _):
        loss = functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss, on_epoch=True, on_step=False)
        self.log("epoch", 7.0)
        return loss

    def validation_step(self, batch, _):
        self.validated += 1
        self.log("val_loss", functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)

    def loader(self, shuffle=True):
        return DataLoader(TensorDataset(X, Y), batch_size=6, shuffle=shuffle)

    train_dataloader = loader

    def val_dataloader(self):
        return self.loader(shuffle=False)


class Keep(Callback):
    """Keeps the weights when an epoch, or a step, is over: an oracle that knows nothing of recorders."""

    def __init__(self):
        self.epochs, self.steps = {}, {}

    def weights(self, module):
        return {name: value.clone() for name, value in module.state_dict().items()}

    def on_train_start(self, trainer, module):
        self.steps[trainer.global_step] = self.weights(module)
        if trainer.global_step % 4 == 0:
            self.epochs[trainer.global_step // 4] = self.weights(module)

    def on_train_batch_end(self, trainer, module, *_):
        self.steps.setdefault(trainer.global_step, self.weights(module))  # what accumulates comes after its step

    def on_train_epoch_end(self, trainer, module):
        self.epochs[trainer.current_epoch + 1] = self.weights(module)


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


@pytest.fixture
def fit(tmp_path):
    """Train, with nothing that is shown or written."""

    def fit(module, *callbacks, ckpt_path=None, **options):
        quietly = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        checkpoints = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
        where = {"accelerator": "cpu", "default_root_dir": tmp_path, "enable_checkpointing": checkpoints}
        trainer = Trainer(callbacks=list(callbacks), **{"max_epochs": 3, **quietly, **where, **options})
        torch.manual_seed(5)  # the order of the data, and dropout
        trainer.fit(module, ckpt_path=ckpt_path)
        return trainer

    return fit


def plain(weights, x=PROBE, module=None):
    """What a plain forward pass of the network with these weights gives, layer by layer."""
    module = (module or Digits()).eval()
    module.load_state_dict(weights)
    with torch.no_grad():
        return {"model.2": module.model[:3](x), "model.4": module.model(x)}


def assert_recorded(store, kept, points, prefix="", **options):
    assert epochs(store) == points
    for point in points:
        for layer, values in plain(kept[point], **options).items():
            expected = (values.float() if values.dtype is torch.bfloat16 else values).numpy()
            np.testing.assert_array_equal(recorded(store, layer.removeprefix(prefix), point), expected)


def test_every_epoch_is_a_plain_forward_pass_bit_for_bit(store, fit):
    keep, module = Keep(), Digits()
    fit(module, keep, LightningRecorder(store, x=PROBE))
    assert_recorded(store, keep.epochs, [0, 1, 2, 3])
    records = [segment.record for segment in Store.open(store).run("run0").segments]
    assert [step for record in records for step in record.steps] == [0, 4, 8, 12]
    assert module.validated == 3 * 4 + 2, "the sanity check is no epoch"
    assert hook_count(module) == 0


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        ("every:2", [0, 2, 3]),
        ("list:1", [0, 1, 3]),
        ("every:5@steps", [0, 5, 10, 12]),
        ("log:4", [0, 1, 2, 5, 12]),
        ("log:9@epochs", [0, 1, 2, 3]),
    ],
)
def test_schedules(store, fit, schedule, points):
    keep = Keep()
    fit(Digits(), keep, LightningRecorder(store, x=PROBE, schedule=schedule))
    assert_recorded(store, keep.steps if "log:4" in schedule or "steps" in schedule else keep.epochs, points)
    assert Store.open(store).run("run0").manifest.settings == {"trainer": "lightning", "schedule": schedule}


def test_accumulated_batches_are_one_step(store, fit):
    keep = Keep()
    fit(Digits(), keep, LightningRecorder(store, x=PROBE, schedule="every:1@steps"), accumulate_grad_batches=2)
    assert_recorded(store, keep.steps, list(range(7)))


class TwoOptimizers(Digits):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self):
        return [torch.optim.SGD(self.model[layer].parameters(), lr=0.1) for layer in (0, 4)]

    def training_step(self, batch, _):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(functional.cross_entropy(self(batch[0]), batch[1]))
            optimizer.step()


def test_steps_of_several_optimizers(store, fit):
    keep = Keep()
    fit(TwoOptimizers(), keep, LightningRecorder(store, x=PROBE, schedule="every:5@steps"), max_epochs=2)
    assert_recorded(store, keep.steps, [0, 6, 10, 16])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("schedule", ["every:1", "every:1@steps"])
def test_training_is_the_same_with_and_without(store, fit, precision, schedule):
    plain_keep, keep = Keep(), Keep()
    fit(Digits(), plain_keep, precision=precision)
    fit(Digits(), keep, LightningRecorder(store, x=PROBE, y=Y[:10], schedule=schedule), precision=precision)
    assert keep.steps.keys() == plain_keep.steps.keys()
    for step, weights in plain_keep.steps.items():
        for name, value in weights.items():
            assert torch.equal(keep.steps[step][name], value), (step, name)


def test_mixed_precision_is_recorded_under_autocast(store, fit):
    keep = Keep()
    fit(Digits(), keep, LightningRecorder(store, x=PROBE), precision="bf16-mixed")
    with torch.autocast("cpu", torch.bfloat16):
        assert_recorded(store, keep.epochs, [0, 1, 2, 3])
    assert "bfloat16" in Store.open(store).run("run0").manifest.mode


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-true", torch.bfloat16), ("64-true", torch.float64)])
@pytest.mark.parametrize("given", [torch.Tensor.clone, torch.Tensor.numpy])
def test_whole_precision_is_recorded_as_such(store, fit, precision, dtype, given):
    keep = Keep()
    fit(Digits(), keep, LightningRecorder(store, x=given(PROBE)), precision=precision)
    assert_recorded(store, keep.epochs, [0, 1, 2, 3], x=PROBE.to(dtype), module=Digits().to(dtype))


def test_a_precision_that_is_not_known_is_refused(store, fit):
    with pytest.raises(
        UsageError, match="cannot be recorded at precision 'transformer-engine'; train at one of 32-true"
    ):
        LightningRecorder(store, x=PROBE).on_train_start(
            type(
                "Odd",
                (),
                {"precision": "transformer-engine", "global_step": 0, "is_global_zero": True, "current_epoch": 0},
            ),
            Digits(),
        )


def test_a_network_inside_the_module(store, fit):
    keep = Keep()
    fit(Digits(), keep, LightningRecorder(store, x=PROBE, network="model"))
    assert_recorded(store, keep.epochs, [0, 1, 2, 3], prefix="model.")
    with pytest.raises(UnknownNameError, match="the module has no network 'net'; it has model"):
        fit(Digits(), LightningRecorder(store, x=PROBE, network="net", run="other"))


class Unlogged(Digits):
    def training_step(self, batch, _):
        return functional.cross_entropy(self(batch[0]), batch[1])  # dynamo cannot compile `log`


def test_a_compiled_module(store, fit):
    keep, module = Keep(), torch.compile(Unlogged(), backend="eager")
    fit(module, keep, LightningRecorder(store, x=PROBE), limit_val_batches=0)
    assert_recorded(store, keep.epochs, [0, 1, 2, 3])


def test_several_splits(store, fit):
    keep = Keep()
    probes = {"train": Probe(X[:7], Y[:7]), "test": Probe(X[7:], Y[7:])}
    fit(Digits(), keep, LightningRecorder(store, probes=probes), precision="64-true")
    for split, probe in probes.items():
        expected = plain(keep.epochs[2], probe.x.double(), Digits().double())["model.4"]
        np.testing.assert_array_equal(recorded(store, "model.4", 2, split=split), expected.numpy())


# Metrics


def scalars(store):
    records = [segment.record for segment in Store.open(store).run("run0").segments]
    return [row for record in records for row in record.metrics]


def test_what_the_module_logs_becomes_metrics(store, fit):
    module = Digits()
    seen = []

    class Note(Callback):
        def on_train_epoch_end(self, trainer, _):
            seen.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    fit(module, Note(), LightningRecorder(store, x=PROBE))
    rows = scalars(store)
    # the sanity check of the validation leaves a number behind, which is no metric of epoch 0
    assert rows[0] == {}
    assert rows[1:] == [{"train": {"loss": row["train_loss"]}, "val": {"loss": row["val_loss"]}} for row in seen]


def test_what_is_measured_is_not_replaced(store, fit):
    def measure(output, y):
        return {"loss": functional.cross_entropy(output, y).item()}

    keep = Keep()
    fit(Digits(), keep, LightningRecorder(store, x=PROBE, y=Y[:10], measure=measure))
    last = scalars(store)[-1]
    assert last["train"]["loss"] == pytest.approx(measure(plain(keep.epochs[3])["model.4"], Y[:10])["loss"], rel=1e-6)
    assert "loss" in last["val"]


# How a training ends, and goes on


def test_a_training_that_ends_early_has_its_last_network(store, fit):
    keep = Keep()
    stop = EarlyStopping("val_loss", patience=1, min_delta=100.0)
    fit(Digits(), keep, stop, LightningRecorder(store, x=PROBE, schedule="every:10"), max_epochs=20)
    assert_recorded(store, keep.epochs, [0, max(keep.epochs)])
    assert max(keep.epochs) < 20


def test_a_training_that_ends_within_an_epoch(store, fit):
    keep = Keep()
    fit(Digits(), keep, LightningRecorder(store, x=PROBE), max_epochs=-1, max_steps=6)
    assert_recorded(store, keep.epochs, [0, 1, 2])


class Failing(Digits):
    def training_step(self, batch, index):
        if self.current_epoch == 2:
            raise RuntimeError("no more")
        return super().training_step(batch, index)


def test_an_exception_leaves_what_was_recorded_and_no_hooks(store, fit):
    module, keep = Failing(), Keep()
    with pytest.raises(RuntimeError, match="no more"):
        fit(module, keep, LightningRecorder(store, x=PROBE))
    assert_recorded(store, keep.epochs, [0, 1, 2])
    assert hook_count(module) == 0
    with pytest.raises(RunExistsError):
        fit(Digits(), LightningRecorder(store, x=PROBE))
    fit(Digits(), LightningRecorder(store, x=PROBE, force=True))
    assert epochs(store) == [0, 1, 2, 3]


@pytest.mark.parametrize("at_train_end", [True, False])
@pytest.mark.parametrize("schedule", ["every:1", "every:3@steps"])
def test_a_training_goes_on_from_a_checkpoint(store, fit, tmp_path, schedule, at_train_end):
    """As from a process that was killed: whichever hook has saved, epochs go on."""
    save = ModelCheckpoint(tmp_path, filename="c", save_on_train_epoch_end=at_train_end)
    first, second = Keep(), Keep()
    fit(Digits(), first, LightningRecorder(store, x=PROBE, schedule=schedule), save, max_epochs=2)
    before = epochs(store)
    fit(
        Digits(),
        second,
        LightningRecorder(store, x=PROBE, schedule=schedule),
        ckpt_path=tmp_path / "c.ckpt",
        max_epochs=4,
    )
    kept = {**first.epochs, **second.epochs} if schedule == "every:1" else {**first.steps, **second.steps}
    after = [0, 1, 2, 3, 4] if schedule == "every:1" else [0, 3, 6, 8, 9, 12, 15, 16]
    assert after[: len(before)] == before
    assert_recorded(store, kept, after)


@pytest.mark.parametrize("at_train_end", [True, False])
def test_the_point_of_a_checkpoint_is_recorded_where_it_was_lost(store, fit, tmp_path, at_train_end):
    keep = Keep()
    fit(Digits(), ModelCheckpoint(tmp_path, filename="c", save_on_train_epoch_end=at_train_end), max_epochs=2)
    fit(Digits(), keep, LightningRecorder(store, x=PROBE), ckpt_path=tmp_path / "c.ckpt", max_epochs=3)
    assert_recorded(store, keep.epochs, [2, 3])


def test_a_checkpoint_from_within_an_epoch(store, fit, tmp_path):
    keep = Keep()
    fit(Digits(), ModelCheckpoint(tmp_path, filename="c", every_n_train_steps=6), max_steps=6, max_epochs=-1)
    fit(Digits(), keep, LightningRecorder(store, x=PROBE), ckpt_path=tmp_path / "c.ckpt", max_epochs=3)
    assert_recorded(store, keep.epochs, [2, 3])


def test_what_is_trained_again_is_not_recorded_again(store, fit, tmp_path):
    first, events = Keep(), []
    fit(Digits(), ModelCheckpoint(tmp_path, filename="c"), max_epochs=1)
    fit(Digits(), first, LightningRecorder(store, x=PROBE), max_epochs=3)
    second = LightningRecorder(store, x=PROBE, emit=events.append)
    fit(Digits(), second, ckpt_path=tmp_path / "c.ckpt", max_epochs=4)
    assert epochs(store) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(recorded(store, "model.4", 3), plain(first.epochs[3])["model.4"].numpy())
    told = [event.detail for event in events if "goes on from" in event.detail]
    assert told == [
        "the run is recorded up to 3, and the training goes on from 1: what it does again is not recorded again"
    ]


def test_a_trainer_that_fits_twice_goes_on(store, fit):
    keep, module = Keep(), Digits()
    trainer = fit(module, keep, LightningRecorder(store, x=PROBE), max_epochs=1)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module)
    assert_recorded(store, keep.epochs, [0, 1, 2, 3])


def test_other_processes_record_nothing(store):
    trainer = type("Other", (), {"is_global_zero": False, "precision": "32-true", "global_step": 0, "current_epoch": 0})
    recorder = LightningRecorder(store, x=PROBE, schedule="log:5")
    recorder.on_train_start(trainer, Digits())
    recorder.on_train_batch_end(trainer, Digits(), None, None, 0)
    recorder.on_train_epoch_end(trainer, Digits())
    recorder.on_train_end(trainer, Digits())
    assert not store.exists()


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "often:3"}, "schedule 'often:3' cannot be read"),
        ({"lay": ["0"]}, "a callback takes no 'lay' for its recorder; it takes layers, x, y"),
        ({"epochs": 3}, "a callback takes no 'epochs' for its recorder"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(store, options, message):
    with pytest.raises(UsageError) as error:
        LightningRecorder(store, x=PROBE, **options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        ("list:5", {}, "has point 5, but the training ends after 3 epochs"),
        ("log:5@epochs", {"max_epochs": -1, "max_steps": 3}, "up to the end of the training, which is not known"),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused_before_training(store, fit, schedule, options, message):
    keep = Keep()
    with pytest.raises(UsageError, match=message):
        fit(Digits(), LightningRecorder(store, x=PROBE, schedule=schedule), keep, **options)
    assert not store.exists()
    assert not keep.epochs


# What is imported


def test_the_library_is_imported_by_its_callback_alone():
    code = "import sys, ibstore.capture.callbacks.following; print('lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_without_the_library_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.delitem(sys.modules, "ibstore.capture.callbacks.lightning")
    with pytest.raises(UsageError, match=r"LightningRecorder needs lightning; pip install 'ibstore\[lightning\]'"):
        importlib.import_module("ibstore.capture.callbacks.lightning")
