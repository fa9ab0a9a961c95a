"""When and what a bundled training records: schedules, splits, probes, variants of gradients, an early stop."""

import numpy as np
import pytest
import torch

from ibstore.capture.datasets import load_dataset
from ibstore.capture.recipes import recipe
from ibstore.capture.schedule import Schedule
from ibstore.capture.stopping import InformationStopping
from ibstore.capture.train import TrainSettings, train, train_replicas
from ibstore.errors import ResumeError, UsageError
from ibstore.store import Store

from .networks import contents, recorded
from .test_resume import Interrupted, stopping

RUN = "mnist-cnn-seed0"


def settings(name="mnist-cnn", **given):
    small = {"epochs": 4, "limit": 60, "batch_size": 20, "probe_batch": 25, "device": "cpu"}
    return TrainSettings.of(recipe(name), **small | given)


def scheduled(text, **given):
    return settings(schedule=Schedule.parse(text), **given)


def points(store, name=RUN):
    """Capture points and the optimizer's steps at them."""
    records = [segment.record for segment in Store.open(store).run(name).segments]
    return [point for record in records for point in zip(record.epochs, record.steps, strict=True)]


@pytest.fixture(scope="module")
def every_epoch(tmp_path_factory):
    store = tmp_path_factory.mktemp("every") / "lab.zarr"
    train("mnist-cnn", store, settings=settings())
    return store


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("every:3", [(0, 0), (3, 9), (4, 12)]),
        ("list:0,1", [(0, 0), (1, 3), (4, 12)]),
        ("every:5@steps", [(0, 0), (5, 5), (10, 10), (12, 12)]),
        ("log:4", [(0, 0), (1, 1), (2, 2), (5, 5), (12, 12)]),
        ("log:3@epochs", [(0, 0), (1, 3), (2, 6), (4, 12)]),
    ],
)
def test_a_schedule_says_when(store, text, expected):
    train("mnist-cnn", store, settings=scheduled(text))
    assert points(store) == expected


def test_what_is_trained_does_not_hang_on_when_it_is_recorded(store, every_epoch):
    train("mnist-cnn", store, settings=scheduled("log:4"))
    np.testing.assert_array_equal(recorded(store, "out", 12, RUN), recorded(every_epoch, "out", 4, RUN))


@pytest.mark.parametrize("stop", [1, 3])
def test_a_step_schedule_is_resumed_in_the_middle_of_an_epoch(tmp_path, one_by_one, stop):
    whole, store = tmp_path / "whole.zarr", tmp_path / "lab.zarr"
    chosen = scheduled("every:2@steps", fixed_minibatches=True, parallel_minibatches=True)
    train("mnist-cnn", whole, settings=chosen)
    with pytest.raises(Interrupted):
        train("mnist-cnn", store, settings=chosen, emit=stopping(stop))
    train("mnist-cnn", store, settings=chosen, resume=True)
    assert contents(store, RUN) == contents(whole, RUN)
    one, other = (dynamics(each) for each in (store, whole))
    assert one == other


def dynamics(store, name=RUN):
    return [own for segment in Store.open(store).run(name).segments for own in segment.record.dynamics]


def test_a_listed_point_beyond_the_end_is_refused(store):
    with pytest.raises(UsageError, match="has point 9, but the training ends after 4 epochs"):
        train("mnist-cnn", store, settings=scheduled("list:9"))


def test_several_splits_are_recorded_with_metrics_of_their_own(store, every_epoch):
    train("mnist-cnn", store, settings=settings(splits=("train", "test")))
    run = Store.open(store).run(RUN)
    assert [(split.name, split.samples) for split in run.manifest.splits] == [("train", 60), ("test", 1000)]
    np.testing.assert_array_equal(recorded(store, "out", 4, RUN), recorded(every_epoch, "out", 4, RUN))
    test = recorded(store, "out", 4, RUN, "test")
    found = run.segments[-1].record.metrics[-1]["test"]
    labels = load_dataset("mnist-sample").test.y
    assert found["accuracy"] == pytest.approx((test.argmax(1) == labels).mean())
    other = Store.open(every_epoch).run(RUN).segments[-1].record.metrics[-1]["test"]
    assert found == pytest.approx(other)


def test_a_probe_is_a_stratified_part_with_the_ids_that_samples_have(store):
    train("mnist-cnn", store, settings=settings(epochs=0, limit=None, probe=50, splits=("train", "test", "all")))
    run = Store.open(store).run(RUN)
    for split in run.manifest.splits:
        probe, whole = run.probe(split), load_dataset("mnist-sample").split(split.name)
        assert np.bincount(probe.classes()).tolist() == [5] * 10
        np.testing.assert_array_equal(probe.samples(), whole.stratified(50, 0).sample)


def test_a_fraction_is_what_is_trained_on(store):
    train("mnist-cnn", store, settings=settings(epochs=1, limit=None, train_fraction=0.05))
    run = Store.open(store).run(RUN)
    assert run.manifest.split("train").samples == 200
    assert run.manifest.settings["train_fraction"] == 0.05
    assert points(store)[-1] == (1, 10)


# gradients


def test_dynamics_are_those_of_the_minibatches_since_the_last_capture_point(store):
    train("mnist-cnn", store, settings=settings("mnist-cnn", epochs=2))
    first, second, third = dynamics(store)
    assert first["epoch"]["conv1"]["batches"] == 0
    assert second["epoch"]["conv1"]["batches"] == third["epoch"]["conv1"]["batches"] == 3
    data, model = load_dataset("mnist-sample", limit=60).train, None
    torch.manual_seed(0)
    model, order = recipe("mnist-cnn").model(), torch.Generator().manual_seed(0)
    optimizer, x, y = torch.optim.Adam(model.parameters(), lr=0.002), torch.from_numpy(data.x), torch.from_numpy(data.y)
    gradients = []
    for rows in torch.randperm(60, generator=order).split(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.conv1.parameters()]).double())
        optimizer.step()
    stacked = torch.stack(gradients).numpy()
    own = second["epoch"]["conv1"]
    assert own["gradient_mean"] == pytest.approx(np.linalg.norm(stacked.mean(0)), rel=1e-5)
    assert own["gradient_std"] == pytest.approx(np.linalg.norm(stacked.std(0)), rel=1e-5)
    assert own["snr"] == pytest.approx(own["gradient_mean"] / own["gradient_std"])
    assert own["learning_rate"] == 0.002
    assert own["predicted_change"] is None


def test_variants_stand_beside_each_other(store):
    chosen = settings(optimizer="SGD", lr=0.01, fixed_minibatches=True, parallel_minibatches=True)
    train("mnist-cnn", store, settings=chosen)
    first, *_, last = dynamics(store)
    assert set(last) == {"epoch", "fixed", "parallel"}
    assert {layer["batches"] for variant in last.values() for layer in variant.values()} == {3}
    for layer in ("conv1", "conv2", "out"):  # before training all networks are the same
        assert first["fixed"][layer]["snr"] == pytest.approx(first["parallel"][layer]["snr"], rel=1e-3)
    assert last["epoch"]["out"]["predicted_change"] < 0


# stopping


def stops_at(looks):
    """An estimator whose information of the labels is given by the number of looks so far."""
    informations = iter(looks)

    def estimate(t, y):
        assert t.shape == (60, 10)
        assert y.shape == (60,)
        return 0.0, next(informations)

    return estimate


def make_stopping(looks, every=1, patience=1):
    return lambda last: InformationStopping(stops_at(looks), last, tol=0.1, every=every, patience=patience)


def test_a_training_ends_where_information_grows_no_more(store):
    result = train("mnist-cnn", store, settings=settings(), stopping=make_stopping([1.0, 2.0, 2.1, 9.0]))
    assert points(store) == [(0, 0), (1, 3), (2, 6)]
    assert result.history[-1]["train"]["stopped"] == 1.0
    again = train("mnist-cnn", store, settings=settings(), resume=True, stopping=make_stopping([]))
    assert (again.model, len(again.history)) == (None, 3)


def test_the_point_where_it_is_stopped_is_recorded_whatever_the_schedule(store):
    train("mnist-cnn", store, settings=scheduled("list:0"), stopping=make_stopping([1.0, 1.0], every=2))
    assert points(store) == [(0, 0), (2, 6)]


def test_what_stops_is_resumed_with_the_rest(tmp_path, one_by_one):
    store = tmp_path / "lab.zarr"
    with pytest.raises(Interrupted):
        train("mnist-cnn", store, settings=settings(), stopping=make_stopping([1.0, 2.0, 4.0]), emit=stopping(2))
    train("mnist-cnn", store, settings=settings(), stopping=make_stopping([4.2]), resume=True)
    assert points(store)[-1] == (3, 9)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (make_stopping([4.2], every=2), "settings.stopping.every is 1 in the store and 2 here; give the same"),
        (None, "settings.stopping is in the store alone; give the same"),
    ],
)
def test_a_training_is_not_resumed_by_another_rule(store, other, message):
    with pytest.raises(Interrupted):
        train("mnist-cnn", store, settings=settings(), stopping=make_stopping([1.0, 2.0, 4.0]), emit=stopping(2))
    with pytest.raises(ResumeError, match=message):
        train("mnist-cnn", store, settings=settings(), stopping=other, resume=True)


def test_each_replica_is_stopped_by_itself(store):
    looks = iter([[0.0, 1.0, 2.0], [0.0, 1.0, 1.0], [1.0, 1.0]])

    def make(last):
        own = iter(next(looks))
        return InformationStopping(lambda *_: (0.0, next(own)), last, every=1)

    chosen = TrainSettings.of(recipe("szt-simple"), epochs=2, device="cpu")
    train_replicas("szt-simple", store, 3, settings=chosen, stopping=make)
    ends = [points(store, f"szt-simple-seed{seed}")[-1][0] for seed in range(3)]
    assert ends == [2, 2, 1]
