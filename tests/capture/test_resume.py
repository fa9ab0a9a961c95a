"""A training that was interrupted and resumed ends bit for bit like one that was not."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load
from torch import nn
from torch.nn import functional

from ibstore.capture.recipes import recipe
from ibstore.capture.recorder import Recorder
from ibstore.capture.state import State, restore
from ibstore.capture.train import TrainSettings, train
from ibstore.errors import CaptureError, ResumeError
from ibstore.store import Encoding, Store

from .networks import contents, dropout_net, epochs
from .test_train import RUN, settings

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
Y = torch.arange(12) % 3
LAST = 5
CPU = torch.device("cpu")


class Interrupted(BaseException):
    """What stops a training of these tests."""


class Own:
    """A user's training: batch norm, dropout from torch's random numbers, an order of its own, Adam, a schedule."""

    def __init__(self, device="cpu"):
        torch.manual_seed(5)
        self.device = device
        self.model = dropout_net().train().to(device)
        torch.manual_seed(6)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.05)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 2, 0.5)
        self.order = torch.Generator().manual_seed(7)

    @property
    def kept(self):
        return {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule, "order": self.order}

    def epoch(self):
        for rows in torch.randperm(len(X), generator=self.order).split(5):
            self.optimizer.zero_grad()
            loss = functional.cross_entropy(self.model(X[rows].to(self.device)), Y[rows].to(self.device))
            loss.backward()
            self.optimizer.step()
        self.schedule.step()
        return loss

    def run(self, store, stop=None, keep=True, **options):
        kept = self.kept if keep else {}
        with Recorder(store, self.model, x=X, batch_size=5, keep=kept, **options) as recorder:
            for epoch in range(-1 if recorder.epoch is None else recorder.epoch, LAST):
                recorder.record(epoch + 1, loss=self.epoch())
                if epoch + 1 == stop:
                    raise Interrupted
            recorder.complete()
        return self


def interrupted(store, stop=2, **options):
    with pytest.raises(Interrupted):
        Own().run(store, stop, **options)
    assert epochs(store, options.get("run", "run0")) == list(range(stop + 1))
    return store


def states(store):
    return sorted(path for path in store.with_name(f"{store.name}.resume").rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    store = tmp_path_factory.mktemp("undisturbed") / "lab.zarr"
    return Own().run(store), contents(store)


@pytest.mark.parametrize("stops", [[0], [2], [LAST], [0, 1, 4], [0, 1, 2, 3, 4, 5]])
def test_a_training_of_ones_own_ends_like_an_undisturbed_one(store, undisturbed, stops):
    for stop in stops:
        with pytest.raises(Interrupted):
            Own().run(store, stop, resume=True)
        assert len(states(store)) == 1
        torch.rand(3)  # what another process does with its random numbers
    resumed = Own().run(store, resume=True)
    whole, expected = undisturbed
    assert contents(store) == expected
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert resumed.schedule.state_dict() == whole.schedule.state_dict()


def test_what_is_kept_matters(store, undisturbed):
    """Else the test above would pass whatever was restored."""
    interrupted(store)
    Own().run(store, resume=True, keep=False)
    assert epochs(store) == list(range(LAST + 1))
    assert contents(store) != undisturbed[1]


def test_nothing_is_left_when_it_is_complete(store):
    interrupted(store)
    Own().run(store, resume=True)
    assert [path.name for path in store.parent.iterdir()] == [store.name]


def test_two_runs_keep_their_states_apart(store):
    interrupted(store, run="a")
    interrupted(store, run="b", stop=3)
    Own().run(store, run="a", resume=True)
    (left,) = states(store)
    assert left.parts[-2:] == ("b", "0000000003.safetensors")


def test_a_run_that_is_not_there_is_begun(store, undisturbed):
    Own().run(store, resume=True)
    assert contents(store) == undisturbed[1]


def test_history_and_last_epoch_are_told(store):
    interrupted(store)
    own = Own()
    with Recorder(store, own.model, x=X, batch_size=5, keep=own.kept, resume=True) as recorder:
        assert recorder.epoch == 2
        assert [metrics["train"].keys() for metrics in recorder.history] == [{"loss"}] * 3
        with pytest.raises(CaptureError, match="epoch 2 is recorded already"):
            recorder.record(2)
    assert epochs(store) == [0, 1, 2]


def test_without_keep_the_user_restores_the_training(store, undisturbed):
    """At the level of the recorder alone: epochs go on where they were."""
    interrupted(store, keep=False)
    assert states(store) == []
    with Recorder(store, dropout_net(), x=X, batch_size=5, resume=True) as recorder:
        recorder.record(3)
    assert epochs(store) == [0, 1, 2, 3]


def refused(store, message, own=None, **options):
    before = contents(store)
    own = own or Own()
    with pytest.raises(ResumeError, match=message) as refusal:
        own.run(store, resume=True, **options)
    assert contents(store) == before
    assert refusal.value.exit_code == 2
    return str(refusal.value)


def test_other_names_are_refused(store):
    interrupted(store)
    own, fewer = Own(), Own()
    kept = {"model": fewer.model, "adam": fewer.optimizer}
    with pytest.raises(ResumeError) as refusal:
        Recorder(store, fewer.model, x=X, batch_size=5, resume=True, keep=kept)
    assert "holds model, optimizer, order, schedule, but keep has adam, model; give the same names" in str(
        refusal.value
    )
    own.run(store, resume=True)


def test_a_state_that_does_not_fit_is_refused(store):
    interrupted(store)
    own = Own()
    with pytest.raises(ResumeError, match=r"the state of 'model' in .* does not fit"):
        Recorder(store, own.model, x=X, batch_size=5, resume=True, keep=own.kept | {"model": nn.Linear(2, 2)})


def test_a_missing_state_is_refused(store):
    interrupted(store)
    states(store)[0].unlink()
    refused(store, r"there is no state of the training after epoch 2 in .*lab\.zarr\.resume/run0; .* leave keep out")


def test_a_state_that_was_not_kept_is_missing(store):
    interrupted(store, keep=False)
    refused(store, "begun without keep")


@pytest.mark.parametrize("length", [0, 7, 8, 100, -1])
def test_a_truncated_state_is_refused_and_a_restored_one_taken(store, undisturbed, length):
    interrupted(store)
    (path,) = states(store)
    content = path.read_bytes()
    path.write_bytes(content[:length])
    refused(store, r"the state in .*resume/run0 cannot be read \(.*\); restore it from a copy, or begin another run")
    path.write_bytes(content)
    Own().run(store, resume=True)
    assert contents(store) == undisturbed[1]


def kept_after_an_epoch():
    own = Own()
    own.epoch()
    torch.manual_seed(8)
    return State(own.kept, CPU).dump()


CONTENT = kept_after_an_epoch()


def test_a_state_is_a_safetensors_file_without_pickle():
    tensors = load(CONTENT)
    assert len(tensors) > 10
    header = header_of(CONTENT)
    assert set(header.pop("__metadata__")) == {"ibstore", "sha256"}
    assert set(header) == set(tensors)


def header_of(content):
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def same(own):
    """Whether the training is at the state that ``CONTENT`` holds; its checksum covers all but the header's order."""
    torch.manual_seed(8)
    return header_of(State(own.kept, CPU).dump()) == header_of(CONTENT)


def test_a_restored_state_is_the_same_to_the_last_bit():
    own = Own()
    assert not same(own)
    restore(CONTENT, own.kept, CPU, "here")
    assert same(own)


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_harmless(at, flip):
    """Harmless where it is a blank of the header's padding, which may become another blank."""
    content = bytearray(CONTENT)
    content[at] ^= flip
    own = Own()
    try:
        restore(bytes(content), own.kept, CPU, "here")
    except ResumeError:
        return
    assert bytes([CONTENT[at]]) == b" "
    assert same(own)


class Counted:
    """Has a state of plain things."""

    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), PLAIN, max_size=4))
def test_plain_states_come_back_as_they_were(state):
    target = Counted(None)
    restore(State({"own": Counted(state)}, CPU).dump(), {"own": target}, CPU, "here")
    assert repr(target.state) == repr(state)  # 1, 1.0 and True are equal


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (object(), "keep has 'own' of type object, which has no state_dict and load_state_dict"),
        (
            Counted({"function": print}),
            "a state holds a builtin_function_or_method, which cannot be kept without pickle",
        ),
        (Counted({"z": torch.zeros(2, dtype=torch.complex128)}), "a tensor that safetensors cannot keep"),
        (Counted({"z": torch.eye(2).to_sparse()}), "a state holds a Tensor, which cannot be kept"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_training(store, kept, message):
    with pytest.raises(CaptureError, match=message):
        Recorder(store, dropout_net(), x=X, keep={"own": kept})
    assert not store.exists()


# Other settings


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"batch_size": 4}, r"probe_batch is 5 in the store and 4 here; give"),
        ({"dtype": "float16"}, r"layers\.0\.dtype is 'float32' in the store and 'float16' here; .*rounding is None in"),
        ({"encoding": Encoding("lz4")}, r"codec is 'zstd:-1' in the store and 'lz4' here"),
        ({"encoding": Encoding(chunk_bytes=2048)}, r"chunk_bytes is 4194304 in the store and 2048 here"),
        ({"layers": ["0", "4"]}, r"layers\.1 is in the store alone; layers\.2 is in the store alone; give"),
        ({"x": X + 1}, r"splits\.train\.data is '[0-9a-f]{32}' in the store and '[0-9a-f]{32}' here"),
        ({"split": "other"}, r"splits\.train is in the store alone; splits\.other is here alone; give"),
    ],
)
def test_other_settings_are_refused_by_name(store, options, field):
    interrupted(store)
    before = contents(store)
    own = Own()
    with pytest.raises(ResumeError, match=f"run 'run0' cannot be resumed with other settings: .*{field}"):
        Recorder(store, own.model, **{"x": X, "batch_size": 5, "keep": own.kept, "resume": True} | options)
    assert contents(store) == before


def test_another_number_of_threads_is_refused_by_name(store):
    interrupted(store)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        refused(store, f"other settings: threads is {threads} in the store and {threads + 1} here; give the same")
    finally:
        torch.set_num_threads(threads)


# The bundled training


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    store = tmp_path_factory.mktemp("trained") / "lab.zarr"
    result = train("mnist-cnn", store, settings=settings(epochs=3))
    return result, contents(store, RUN)


def stopping(epoch):
    """A listener that ends the training after an epoch was recorded."""

    def listen(event):
        if event.stage == "train" and event.done == epoch + 1:
            raise Interrupted

    return listen


def test_a_training_with_noise_ends_like_an_undisturbed_one(tmp_path, one_by_one):
    own = TrainSettings.of(
        recipe("info-dropout-mnist"),
        epochs=3,
        limit=60,
        batch_size=20,
        device="cpu",
        threads=1,
        options={"width": 0.1, "activation": "softplus"},
    )
    whole, parts = tmp_path / "whole.zarr", tmp_path / "parts.zarr"
    train("info-dropout-mnist", whole, settings=own)
    with pytest.raises(Interrupted):
        train("info-dropout-mnist", parts, settings=own, emit=stopping(1))
    torch.rand(3)
    train("info-dropout-mnist", parts, settings=own, resume=True)
    assert contents(parts, "info-dropout-mnist-seed0") == contents(whole, "info-dropout-mnist-seed0")


@pytest.mark.parametrize("stop", [0, 2, 3])
def test_the_bundled_training_ends_like_an_undisturbed_one(store, trained, stop):
    with pytest.raises(Interrupted):
        train("mnist-cnn", store, settings=settings(epochs=3), emit=stopping(stop))
    assert Store.open(store).run(RUN).epochs == list(range(stop + 1))
    torch.rand(3)
    resumed = train("mnist-cnn", store, settings=settings(epochs=3), resume=True)
    whole, expected = trained
    assert contents(store, RUN) == expected
    assert resumed.history == whole.history
    if resumed.model is not None:
        assert torch.equal(resumed.model.out.weight, whole.model.out.weight)
    assert [path.name for path in store.parent.iterdir()] == [store.name]


def test_a_training_that_ended_before_its_first_commit_is_begun(store, trained):
    def listen(event):
        if event.stage == "record":
            raise Interrupted

    with pytest.raises(Interrupted):
        train("mnist-cnn", store, settings=settings(epochs=3), emit=listen)
    assert Store.open(store).run(RUN).epochs == []
    train("mnist-cnn", store, settings=settings(epochs=3), resume=True)
    assert contents(store, RUN) == trained[1]


def test_a_complete_run_says_so_and_is_left_alone(store):
    train("mnist-cnn", store, settings=settings())
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in store.rglob("zarr.json")}
    events = []
    again = train("mnist-cnn", store, settings=settings(), resume=True, emit=events.append)
    assert [event.detail for event in events] == [f"run {RUN!r} is complete already; there is nothing to do"]
    assert again.model is None
    assert len(again.history) == 2
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in store.rglob("zarr.json")} == before


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (
            {"lr": 0.1},
            r"optimizer is 'Adam\(lr=0.002\)' in the store and 'Adam\(lr=0.1\)' here; settings.lr is 0.002 in",
        ),
        ({"epochs": 2}, "settings.epochs is 1 in the store and 2 here"),
        ({"batch_size": 30}, "settings.batch_size is 20 in the store and 30 here"),
        ({"limit": 40}, r"splits\.train\.data is .*; splits\.train\.samples is 60 .*; settings.limit is 60 in"),
        ({"probe_batch": 60}, "probe_batch is 25 in the store and 60 here"),
        (
            {"dtype": "float16"},
            r"layers\.conv1\.dtype is .*; layers\.conv2\.dtype is .*; rounding is None in the store",
        ),
        ({"threads": 3}, "threads is [12] in the store and 3 here"),
    ],
)
def test_a_training_with_other_settings_is_refused_by_name(store, given, field):
    with pytest.raises(Interrupted):
        train("mnist-cnn", store, settings=settings(threads=1), emit=stopping(0))
    with pytest.raises(ResumeError, match=f"run 'mnist-cnn-seed0' cannot be resumed with other settings: {field}"):
        train("mnist-cnn", store, settings=settings(**{"threads": 1} | given), resume=True)


def test_another_seed_is_another_training_even_under_the_same_name(store):
    with pytest.raises(Interrupted):
        train("mnist-cnn", store, settings=settings(), run="mine", emit=stopping(0))
    with pytest.raises(ResumeError, match="seed is 0 in the store and 1 here"):
        train("mnist-cnn", store, settings=settings(seed=1), run="mine", resume=True)


def test_force_with_resume_removes_nothing(store, undisturbed):
    """It goes on though space is short, no more."""
    interrupted(store)
    Own().run(store, force=True, resume=True)
    assert contents(store) == undisturbed[1]


def test_force_drops_what_was_kept(store):
    interrupted(store)
    Own().run(store, force=True, keep=False)
    assert not Path(f"{store}.resume").exists()


def test_states_can_lie_in_memory_too():
    place = "memory://resumed.zarr"
    own = Own()
    with pytest.raises(Interrupted):
        own.run(place, 2)
    resumed = Own().run(place, resume=True)
    whole = Own().run("memory://whole.zarr")
    assert contents(place) == contents("memory://whole.zarr")
    np.testing.assert_array_equal(resumed.model[4].weight.detach(), whole.model[4].weight.detach())
