"""The order of the data."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from ibstore.capture.training.order import Order

SIZES = {"samples": st.integers(1, 40), "batch": st.integers(1, 50), "seed": st.integers(0, 2**63 - 1)}


@given(**SIZES)
def test_an_epoch_is_a_permutation_of_a_seeded_generator(samples, batch, seed):
    order, generator = Order(samples, batch, seed), torch.Generator().manual_seed(seed)
    for _ in range(2):
        drawn = torch.cat([order.draw() for _ in range(order.per_epoch)])
        assert torch.equal(drawn, torch.randperm(samples, generator=generator))


@given(**SIZES)
def test_random_batches_have_no_sample_twice_and_are_epochs(samples, batch, seed):
    order = Order(samples, batch, seed, random_batches=True)
    assert order.per_epoch == 1
    for _ in range(3):
        rows = order.draw()
        assert len(rows) == min(batch, samples)
        assert len(rows.unique()) == len(rows)
        assert 0 <= rows.min() <= rows.max() < samples


def test_random_batches_differ():
    order = Order(1000, 101, 0, random_batches=True)
    assert not torch.equal(order.draw(), order.draw())


@given(steps=st.integers(0, 12), random_batches=st.booleans(), **SIZES)
def test_it_goes_on_from_its_state_in_the_middle_of_an_epoch_too(steps, random_batches, samples, batch, seed):
    order = Order(samples, batch, seed, random_batches=random_batches)
    for _ in range(steps):
        order.draw()
    state = order.state_dict()
    other = Order(samples, batch, 5, random_batches=random_batches)
    expected = [order.draw() for _ in range(5)]
    other.load_state_dict(state)
    for rows in expected:
        assert torch.equal(other.draw(), rows)
