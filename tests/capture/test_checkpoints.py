import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ibstore.capture.checkpoints import fitted, load_weights, read_weights, record_checkpoints
from ibstore.errors import CaptureError, ResumeError, RunExistsError, SourceError, UsageError
from ibstore.store import Store

from .networks import dropout_net, epochs, recorded

X = torch.randn(10, 4, generator=torch.Generator().manual_seed(1))
Y = np.arange(10) % 3


def trained(epoch):
    """The network as it was after an epoch: batch statistics and all."""
    model = dropout_net()
    generator = torch.Generator().manual_seed(epoch)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator))
    return model.eval()


def said(epoch, layers=slice(None)):
    """What a plain forward pass of the network of that epoch gives."""
    with torch.no_grad():
        return trained(epoch)[layers](X).numpy()


def bare(weights, path):
    torch.save(weights, path)


def lightning(weights, path):
    content = {"epoch": 3, "state_dict": {f"model.{key}": value for key, value in weights.items()}, "lr": [0.1]}
    torch.save(content, path)


def data_parallel(weights, path):
    torch.save({"model": {f"module.{key}": value for key, value in weights.items()}, "optimizer": {}}, path)


def compiled(weights, path):
    named = {f"model._orig_mod.module.{key}": value for key, value in weights.items()}
    torch.save({"model_state_dict": named}, path)


def legacy(weights, path):
    torch.save(weights, path, _use_new_zipfile_serialization=False)


def safetensors(weights, path):
    save_file(weights, path)


@pytest.fixture
def kept(tmp_path):
    """A folder with the checkpoints of epochs 0, 2 and 10."""
    for epoch in (0, 2, 10):
        bare(trained(epoch).state_dict(), tmp_path / f"epoch_{epoch}.pt")
    return tmp_path


def record(store, folder, pattern="epoch_*.pt", factory=dropout_net, **options):
    return record_checkpoints(store, f"{folder}/{pattern}", factory, **{"x": X, **options})


@pytest.mark.parametrize("write", [bare, lightning, data_parallel, compiled, legacy, safetensors])
def test_recorded_arrays_are_plain_forward_passes_of_the_kept_weights(store, tmp_path, write):
    suffix = "safetensors" if write is safetensors else "pt"
    for epoch in (0, 2, 10):
        write(trained(epoch).state_dict(), tmp_path / f"epoch_{epoch}.{suffix}")
    done = record(store, tmp_path, f"*.{suffix}", layers=["2", "4"], y=Y)
    assert [checkpoint.epoch for checkpoint in done] == epochs(store) == [0, 2, 10]
    for epoch in (0, 2, 10):
        np.testing.assert_array_equal(recorded(store, "4", epoch), said(epoch))
        np.testing.assert_array_equal(recorded(store, "2", epoch), said(epoch, slice(3)))


def test_steps_of_names_are_recorded(store, tmp_path):
    for epoch in (1, 2):
        bare(trained(epoch).state_dict(), tmp_path / f"epoch={epoch}-step={50 * epoch}.ckpt")
    record(store, tmp_path, "*.ckpt")
    records = [segment.record for segment in Store.open(store).run("run0").segments]
    assert [step for each in records for step in each.steps] == [50, 100]


def test_a_factory_of_a_file_and_what_the_manifest_says(store, kept, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (kept / "own.py").write_text("from tests.capture.networks import dropout_net as make\n")
    record(store, kept, factory=f"{kept}/own.py:make", run="old")
    settings = Store.open(store).run("old").manifest.settings
    assert settings == {"from": "checkpoints", "factory": f"{kept}/own.py:make"}


def test_progress_is_told(store, kept):
    events = []
    record(store, kept, emit=events.append)
    told = [(event.done, event.total, event.detail) for event in events if event.stage == "checkpoints"]
    assert told == [(1, 3, "epoch 0: epoch_0.pt"), (2, 3, "epoch 2: epoch_2.pt"), (3, 3, "epoch 10: epoch_10.pt")]


def test_resume_goes_on_where_it_ended(store, kept):
    record(store, kept, "epoch_[02].pt")
    with pytest.raises(RunExistsError):
        record(store, kept)
    assert [checkpoint.epoch for checkpoint in record(store, kept, resume=True)] == [10]
    assert record(store, kept, resume=True) == ()
    assert epochs(store) == [0, 2, 10]
    np.testing.assert_array_equal(recorded(store, "4", 10), said(10))
    with pytest.raises(ResumeError):
        record(store, kept, resume=True, layers=["4"])


def test_half_precision_weights_fill_a_wider_network(store, tmp_path):
    weights = {
        key: value.half() if value.is_floating_point() else value for key, value in trained(3).state_dict().items()
    }
    bare(weights, tmp_path / "epoch_3.pt")
    record(store, tmp_path)
    model = dropout_net().eval()
    model.load_state_dict(weights)
    with torch.no_grad():
        np.testing.assert_array_equal(recorded(store, "4", 3), model(X).numpy())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x))


def test_tied_weights_that_the_file_has_once(tmp_path):
    torch.manual_seed(0)
    model, other = Tied(), Tied()
    weights = model.state_dict()
    del weights["second.weight"]
    save_file(weights, tmp_path / "epoch_0.safetensors")
    load_weights(other, tmp_path / "epoch_0.safetensors")
    assert torch.equal(other(X), model(X))
    del weights["first.weight"]
    with pytest.raises(SourceError, match=r"it lacks first.weight, second.weight;"):
        fitted(tmp_path, weights, model)


def test_prefixes_are_stripped_only_where_that_makes_names_fit():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Linear(2, 2)

    weights = Own().state_dict()
    assert fitted("x", weights, Own()).keys() == {"model.weight", "model.bias"}
    assert fitted("x", weights, nn.Linear(2, 2)).keys() == {"weight", "bias"}


# Refusals


class Unknown:
    pass


def refused(kept, weights, name="epoch_5.pt"):
    torch.save(weights, kept / name)
    return kept / name


def test_objects_are_never_unpickled(store, kept):
    refused(kept, {"model": trained(5)})
    with pytest.raises(SourceError) as error:
        record(store, kept)
    assert "epoch_5.pt holds torch.nn.modules.container.Sequential, which only unpickling would make" in str(
        error.value
    )
    assert "torch.save(model.state_dict(), path)" in str(error.value)
    assert not store.exists(), "all files are looked at before anything is written"


def test_a_class_that_is_trusted_can_be_allowed(store, kept):
    weights = {"state_dict": trained(5).state_dict(), "hyper_parameters": Unknown()}
    refused(kept, weights)
    with pytest.raises(
        SourceError, match=r"Unknown, .* allow a class that you trust with torch.serialization.add_safe"
    ):
        record(store, kept)
    with torch.serialization.safe_globals([Unknown]):
        record(store, kept)
    np.testing.assert_array_equal(recorded(store, "4", 5), said(5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("4.bias"), "does not fit the network: it lacks 4.bias; give the factory"),
        (lambda weights: weights.update(extra=X), "does not fit the network: it also has extra;"),
        (
            lambda weights: weights.update({f"head.{number}": X for number in range(9)}) or weights.pop("0.bias"),
            "it lacks 0.bias and also has head.0, head.1, head.2, head.3, head.4, head.5, …;",
        ),
        (
            lambda weights: weights.update({"4.bias": X}),
            "4.bias has shape (10, 4), but (3,) in the network; give the factory of its training",
        ),
        (
            lambda weights: weights.update({"4.bias": torch.zeros(3).double()}),
            "4.bias is torch.float64, which would be rounded to the network's torch.float32; let the factory make",
        ),
        (lambda weights: weights.clear(), "holds a OrderedDict without a state dict"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_anything_is_written(store, kept, change, message):
    weights = trained(5).state_dict()
    change(weights)
    refused(kept, weights)
    with pytest.raises(SourceError) as error:
        record(store, kept)
    assert message in str(error.value)
    assert str(kept / "epoch_5.pt") in str(error.value)
    assert not store.exists()


@pytest.mark.parametrize("content", [X, [X], {"state_dict": X, 3: X}])
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    with pytest.raises(
        SourceError, match="without a state dict, neither itself nor under state_dict, model_state_dict"
    ):
        read_weights(refused(tmp_path, content))


@pytest.mark.parametrize("name", ["epoch_5.pt", "epoch_5.safetensors"])
@pytest.mark.parametrize("content", [b"", b"some text", None])
def test_a_damaged_file_is_refused_before_anything_is_written(store, kept, name, content):
    if content is None:  # a file that was cut off
        (safetensors if name.endswith("safetensors") else bare)(trained(5).state_dict(), kept / name)
        content = (kept / name).read_bytes()[:-20]
    (kept / name).write_bytes(content)
    with pytest.raises(
        SourceError, match=f"{name} cannot be read as a checkpoint .*; it is damaged or none: copy it"
    ) as told:
        record(store, kept, "epoch_*")
    assert "weights_only" not in str(told.value)  # torch's own advice is to unpickle it
    assert not store.exists()


def test_a_flipped_byte_ends_the_recording_and_resume_goes_on(store, kept):
    path = kept / "epoch_2.pt"
    whole = path.read_bytes()
    place = whole.find(trained(2).state_dict()["4.weight"].numpy().tobytes())
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(SourceError, match=r"epoch_2.pt is damaged: .* is not what its CRC-32 says; copy it anew"):
        record(store, kept)
    assert epochs(store) == [0]
    path.write_bytes(whole)
    record(store, kept, resume=True)
    assert epochs(store) == [0, 2, 10]


def test_what_the_recorder_refuses_is_refused(store, kept):
    with pytest.raises(CaptureError, match="the network fails on the first batch"):
        record(store, kept, x=torch.zeros(3, 9))
    with pytest.raises(UsageError, match="no file matches"):
        record(store, kept, "none*.pt")
    with pytest.raises(UsageError, match="give a function that returns"):
        record(store, kept, factory=3)
    with pytest.raises(UsageError, match="device 'nowhere' cannot be used here"):
        record(store, kept, device="nowhere")
    assert not store.exists()
