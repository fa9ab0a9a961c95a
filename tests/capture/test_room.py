"""What a run will take is told before it begins, and a run that cannot fit is refused."""

import pytest
import torch
from torch import nn

from ibstore.capture.recorder import Recorder
from ibstore.capture.train import train
from ibstore.errors import CaptureError
from ibstore.store import Store
from ibstore.store.places.disk import Disk

from .networks import epochs
from .test_resume import Interrupted, stopping
from .test_train import RUN, settings

X = torch.randn(1000, 8, generator=torch.Generator().manual_seed(1))
RAW = 1000 * 16 * 4
ROOM = 80 << 10
"""For an epoch, which random numbers make no smaller, and not for a probe set beside it, nor for two."""


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16))


def free(monkeypatch, amount):
    monkeypatch.setattr(Disk, "free_bytes", lambda _: amount)


def notices(store, **options):
    events = []
    with Recorder(store, network(), x=X, emit=events.append, **options) as recorder:
        recorder.record(0)
    return [event.detail for event in events if event.is_notice]


def test_the_size_is_told_before_the_run_begins(store, monkeypatch):
    free(monkeypatch, 1 << 30)
    (notice,) = notices(store, epochs=10)
    run, _, told = notice.partition(": ")
    assert run == "run 'run0'"
    assert told.startswith("10 epochs of 62.5 KiB, stored in about ")
    assert told.endswith(" KiB, with 1.0 GiB free")


def test_the_size_that_is_told_is_about_what_is_stored(store):
    (notice,) = notices(store, epochs=1)
    told = float(notice.partition("about ")[2].split()[0]) * 1024
    stored = sum(path.stat().st_size for path in store.rglob("c.*"))
    assert told == pytest.approx(stored, rel=0.1)


def test_without_a_number_of_epochs_one_is_told(store, monkeypatch):
    free(monkeypatch, 1 << 30)
    assert notices(store)[0].startswith("run 'run0': an epoch of 62.5 KiB, stored in about ")


def test_a_place_without_end_says_nothing_of_free_space():
    (notice,) = notices("memory://room.zarr", epochs=2)
    assert notice.startswith("run 'run0': 2 epochs of 62.5 KiB, stored in about ")
    assert "free" not in notice


def test_a_run_that_cannot_fit_is_refused_before_anything_is_written(store, monkeypatch):
    free(monkeypatch, 10 * RAW)
    with pytest.raises(CaptureError) as refusal:
        Recorder(store, network(), x=X, epochs=100)
    text = str(refusal.value)
    assert text.startswith(f"run 'run0' does not fit into {store}: 100 epochs of 62.5 KiB, stored in about ")
    assert text.endswith(
        " MiB, with 625.0 KiB free; free space, record fewer layers or epochs, round with dtype='float16' (--dtype), "
        "or try all the same with force=True (--force)"
    )
    assert list(store.parent.iterdir()) == []


def test_force_begins_all_the_same(store, monkeypatch):
    free(monkeypatch, 0)
    notices(store, epochs=100, force=True)
    assert epochs(store) == [0]


def test_a_probe_set_that_is_stored_already_takes_nothing(store, monkeypatch):
    notices(store)
    free(monkeypatch, ROOM)
    with pytest.raises(CaptureError, match="does not fit"):
        Recorder(store, network(), x=X + 1, run="other", epochs=1)
    notices(store, run="same", epochs=1)


def test_a_resume_counts_only_the_epochs_to_come(store, monkeypatch):
    free(monkeypatch, 1 << 30)
    notices(store, epochs=3)
    (notice,) = notices_of_a_resume(store, 3)
    assert ": 2 epochs of" in notice
    free(monkeypatch, ROOM)
    with pytest.raises(
        CaptureError, match=r"does not fit .* with 80\.0 KiB free; free space and resume it again, or go on"
    ):
        Recorder(store, network(), x=X, epochs=3, resume=True)
    with Recorder(store, network(), x=X, epochs=2, resume=True) as recorder:
        recorder.record(1)
    assert epochs(store) == [0, 1]
    with Recorder(store, network(), x=X, epochs=3, resume=True, force=True) as recorder:
        recorder.record(2)
    assert epochs(store) == [0, 1, 2]


def notices_of_a_resume(store, planned):
    events = []
    Recorder(store, network(), x=X, emit=events.append, epochs=planned, resume=True).close()
    return [event.detail for event in events if event.is_notice]


def test_nothing_to_come_needs_no_space_and_no_notice(store, monkeypatch):
    notices(store, epochs=1)
    free(monkeypatch, 0)
    assert notices_of_a_resume(store, 1) == []


def test_the_bundled_training_plans_the_untrained_network_too(store, monkeypatch):
    free(monkeypatch, 1 << 40)
    events = []
    with pytest.raises(Interrupted):
        train(
            "mnist-cnn",
            store,
            settings=settings(epochs=3),
            emit=lambda event: (events.append(event), stopping(1)(event)),
        )
    assert events[0].is_notice
    assert f"run '{RUN}': 4 epochs of 1.1 MiB" in events[0].detail
    free(monkeypatch, 0)
    with pytest.raises(CaptureError, match=r"2 epochs of 1\.1 MiB"):
        train("mnist-cnn", store, settings=settings(epochs=3), resume=True)
    assert Store.open(store).run(RUN).epochs == [0, 1]


@pytest.mark.parametrize(
    ("dtype", "rounded", "stored", "rounding"),
    [
        (torch.float32, None, "float32", None),
        (torch.float32, "float16", "float16", "float16"),
        (torch.float32, "bfloat16", "float32", "bfloat16"),
        (torch.float32, "float32", "float32", None),
        (torch.float32, "float64", "float64", None),
        (torch.float64, None, "float64", None),
        (torch.float64, "float32", "float32", "float32"),
        (torch.bfloat16, None, "float32", None),
        (torch.bfloat16, "float16", "float16", "float16"),
        (torch.float16, "bfloat16", "float32", "bfloat16"),
    ],
)
def test_the_manifest_tells_of_rounding_where_something_may_be_lost(store, dtype, rounded, stored, rounding):
    model = nn.Sequential(nn.Identity())
    with Recorder(store, model, layers=["0"], x=X.to(dtype), dtype=rounded) as recorder:
        recorder.record(0)
    manifest = Store.open(store).run("run0").manifest
    assert (manifest.layers[0].dtype, manifest.rounding) == (stored, rounding)
