"""On a CUDA device, where there is one: the same seed gives the same store, bit for bit, after a kill too."""

import pytest
import torch

from ibstore.capture.train import train
from ibstore.errors import ResumeError
from ibstore.store import Store

from .networks import contents
from .test_resume import Interrupted, Own, stopping
from .test_train import RUN, settings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here")

CUDA = settings(epochs=3, device="cuda")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    store = tmp_path_factory.mktemp("cuda") / "lab.zarr"
    train("mnist-cnn", store, settings=CUDA)
    return contents(store, RUN)


def test_auto_is_cuda(store):
    train("mnist-cnn", store, settings=settings(device="auto"))
    assert Store.open(store).run(RUN).manifest.device == "cuda"


def test_a_seed_gives_the_same_store(store, undisturbed):
    train("mnist-cnn", store, settings=CUDA)
    assert contents(store, RUN) == undisturbed


@pytest.mark.parametrize("stop", [0, 1])
def test_a_bundled_training_that_was_interrupted_ends_like_an_undisturbed_one(store, undisturbed, stop):
    with pytest.raises(Interrupted):
        train("mnist-cnn", store, settings=CUDA, emit=stopping(stop))
    with pytest.raises(ResumeError, match="device is 'cuda' in the store and 'cpu' here"):
        train("mnist-cnn", store, settings=settings(epochs=3), resume=True)
    train("mnist-cnn", store, settings=CUDA, resume=True)
    assert contents(store, RUN) == undisturbed


def test_dropout_draws_what_it_would_have_drawn(tmp_path):
    """The random numbers of the device come back with the rest."""
    whole, store = tmp_path / "whole.zarr", tmp_path / "resumed.zarr"
    Own("cuda").run(whole)
    with pytest.raises(Interrupted):
        Own("cuda").run(store, 2)
    torch.rand(3, device="cuda")
    Own("cuda").run(store, resume=True)
    assert contents(store) == contents(whole)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_rounded_dtype(store, dtype):
    train("mnist-cnn", store, settings=settings(device="cuda", dtype=dtype))
    assert Store.open(store).run(RUN).epochs == [0, 1]
