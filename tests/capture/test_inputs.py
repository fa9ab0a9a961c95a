import numpy as np
import pytest
import torch
from torch import nn

from ibstore.capture.arguments import Probe
from ibstore.capture.forward import activations
from ibstore.capture.inputs import Inputs
from ibstore.capture.recorder import Recorder
from ibstore.errors import CaptureError, IbstoreError, ResumeError, UsageError
from ibstore.store import Store

from .networks import MASK, TOKENS, X4, Heads, epochs

CPU = torch.device("cpu")


def called(x, rows=slice(0, 2)):
    return Inputs.of(x).given_to(lambda *ordered, **named: (ordered, named), rows, CPU)


def test_one_input_is_the_only_argument():
    for x in (X4, X4.numpy(), X4.tolist()):
        (only,), named = called(x)
        assert torch.equal(only, X4[:2])
        assert named == {}


@pytest.mark.parametrize("kind", [tuple, list])
def test_several_inputs_are_given_in_order(kind):
    (first, second), named = called(kind([X4, MASK.numpy()]))
    assert torch.equal(first, X4[:2])
    assert torch.equal(second, MASK[:2])
    assert named == {}


def test_inputs_in_a_mapping_are_given_by_name():
    ordered, named = called({"b": X4, "a": MASK}, slice(9, 10))
    assert ordered == ()
    assert list(named) == ["b", "a"]
    assert torch.equal(named["a"], MASK[9:])
    assert Inputs.of({"b": X4, "a": MASK}).first is not MASK


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ((), UsageError, "x is empty"),
        ({}, UsageError, "x is empty"),
        ({3: X4}, UsageError, "an input called 3"),
        ((X4, X4[:9]), UsageError, r"x has inputs of 10 and of 9 samples \(0, 1, of which 1 differs\)"),
        ({"a": X4, "b": 3}, CaptureError, r"x\['b'\] is a single number"),
        ({"a": X4, "b": None}, CaptureError, r"x\['b'\] has dtype object"),
        ({"a": X4, "b": "text"}, CaptureError, r"x\['b'\] has dtype <U4"),
        ([[1.0], [1.0, 2.0]], CaptureError, "x is no array"),
    ],
)
def test_what_cannot_be_given_to_a_network_is_refused(x, error, message):
    with pytest.raises(error, match=message):
        Inputs.of(x)


def test_activations_refuse_what_cannot_be_meant():
    with pytest.raises(UsageError, match="model is of type"):
        activations(len, X4)
    with pytest.raises(UsageError, match="batch_size is 0"):
        activations(nn.Sequential(nn.Tanh()), X4, batch_size=0)
    with pytest.raises(CaptureError, match="x has no samples"):
        activations(nn.Sequential(nn.Tanh()), X4[:0])


# In a store


def record(store, x, epoch=0, **options):
    with Recorder(store, Heads(), layers=["fc"], x=x, **options) as recorder:
        recorder.record(epoch)


def test_the_first_input_is_kept_as_x(store):
    record(store, {"tokens": TOKENS, "mask": MASK})
    run = Store.open(store).run("run0")
    np.testing.assert_array_equal(np.concatenate(list(run.probe(run.manifest.splits[0]).x_blocks())), TOKENS.numpy())


def test_a_run_does_not_go_on_with_another_second_input(store):
    record(store, (TOKENS, MASK))
    record(store, (TOKENS, MASK), 1, resume=True)
    with pytest.raises(ResumeError, match="other_inputs"):
        record(store, (TOKENS, 1 - MASK), 2, resume=True)
    assert epochs(store) == [0, 1]
    record(store, (TOKENS, 1 - MASK), run="other")


def test_a_network_that_does_not_take_its_inputs_is_refused_with_all_of_them(store):
    with pytest.raises(CaptureError, match=r"first batch of x, \(10, 4\) torch.float32, \(10, 3\) torch.int64 on cpu"):
        record(store, {"tokens": TOKENS, "nonsense": MASK})


# Several splits


def two(**other):
    return {"train": Probe((TOKENS, MASK), np.arange(10)), "test": Probe(**{"x": (TOKENS[:7] + 1, MASK[:7])} | other)}


def heads(store, **options):
    return Recorder(store, Heads(), **{"layers": ["fc", "pair[mean]"], "probes": two()} | options)


def test_every_split_is_recorded_at_every_epoch(store):
    model = Heads()
    with Recorder(store, model, layers=["fc"], probes=two(sample=np.arange(7) + 50), batch_size=4) as recorder:
        recorder.record(0)
        recorder.record(3)
    run = Store.open(store).run("run0")
    assert [(split.name, split.samples) for split in run.manifest.splits] == [("train", 10), ("test", 7)]
    with torch.no_grad():
        for name, x in (("train", TOKENS), ("test", TOKENS[:7] + 1)):
            expected = np.concatenate([model.fc(x[start : start + 4]).numpy() for start in range(0, len(x), 4)])
            for epoch in (0, 3):
                blocks = run.segment(epoch).blocks(run.manifest.split(name), run.layer("fc"), epoch)
                np.testing.assert_array_equal(np.concatenate(list(blocks)), expected)
    np.testing.assert_array_equal(run.probe(run.manifest.split("test")).samples(), np.arange(7) + 50)


def test_splits_of_large_epochs_are_recorded_too(store, one_by_one):
    with heads(store) as recorder:
        recorder.record(0)
        recorder.record(1)
    assert [segment.record.epochs for segment in Store.open(store).run("run0").segments] == [(0,), (1,)]


def test_splits_with_labels_are_measured_and_numbers_belong_to_the_first(store):
    def measure(output, labels):
        return {"label": labels.double().mean(), "logit": output["logits"].mean()}

    with heads(store, measure=measure, batch_size=3) as recorder:
        found = recorder.record(0, loss=2, test={"loss": 3})
    assert found["train"]["label"] == pytest.approx(4.5)
    assert found["train"]["loss"] == 2
    assert found["test"] == {"loss": 3}
    with heads(store, measure=measure, probes=two(y=np.full(7, 5)), run="other") as recorder:
        assert recorder.record(0)["test"]["label"] == 5


def test_progress_counts_the_samples_of_all_splits(store):
    seen = []
    with heads(store, batch_size=5, emit=seen.append) as recorder:
        recorder.record(0)
    assert [(event.done, event.total) for event in seen if not event.is_notice] == [
        (5, 17),
        (10, 17),
        (15, 17),
        (17, 17),
    ]


def test_targets_are_kept(store):
    probes = {"train": Probe(X4, targets={"p_y1": torch.linspace(0, 1, 10)})}
    with Recorder(store, nn.Sequential(nn.Tanh()), probes=probes):
        pass
    (split,) = Store.open(store).run("run0").manifest.splits
    assert (store / "data" / split.data / "target_p_y1").is_dir()


def test_dynamics_go_into_the_commit_record(store):
    dynamics = {"epoch": {"fc": {"snr": 0.5, "gradient_mean": None}}}
    with heads(store) as recorder:
        recorder.record(0)
        recorder.record(1, 10, dynamics)
    (segment,) = Store.open(store).run("run0").segments
    assert tuple(segment.record.dynamics) == ({}, dynamics)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, UsageError, r"there is nothing to record: give x, or probes="),
        ({"x": TOKENS, "probes": two()}, UsageError, "those of a single one"),
        ({"y": MASK, "probes": two()}, UsageError, "those of a single one"),
        ({"split": "other", "probes": two()}, UsageError, "those of a single one"),
        ({"probes": {}}, UsageError, "give at least one split"),
        ({"probes": [Probe(TOKENS)]}, UsageError, "give at least one split"),
        ({"probes": {"train": TOKENS}}, UsageError, r"probes\['train'\] is of type Tensor; give an ibstore.Probe"),
        ({"probes": two(x=TOKENS)}, CaptureError, "split 'test': the network fails on the first batch of x"),
        ({"probes": two(x=(TOKENS, MASK[:, :1]))}, None, None),
        ({"probes": two(y=[1])}, CaptureError, r"split 'test': y has shape \(1,\)"),
        ({"probes": {"": Probe((TOKENS, MASK))}}, UsageError, "name is empty"),
    ],
)
def test_wrong_splits_are_refused_before_anything_is_written(store, options, error, message):
    if error is None:  # a mask that is broadcast is fine
        heads(store, **options).close()
        return
    with pytest.raises(IbstoreError, match=message) as caught:
        Recorder(store, Heads(), layers=["fc"], **options)
    assert type(caught.value) is error
    assert not store.exists()


def test_a_layer_whose_shape_differs_between_splits_is_refused(store):
    probes = {"train": Probe(torch.ones(5, 1, 6, 6)), "test": Probe(torch.ones(3, 1, 7, 7))}
    with pytest.raises(CaptureError) as refusal:
        Recorder(store, nn.Sequential(nn.Conv2d(1, 2, 3)), probes=probes)
    assert str(refusal.value) == (
        "layer '0' puts out float32 (3, 2, 5, 5) for split 'test', but would float32 (3, 2, 4, 4) as for split "
        "'train'; record splits whose samples have one shape"
    )
    assert not store.exists()
