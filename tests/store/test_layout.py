from hypothesis import given
from hypothesis import strategies as st

from ibstore.store.format.layout import BUFFER_BYTES, CHUNK_BYTES, SHARD_BYTES, plan, shard_budget

SAMPLE_BYTES = st.integers(0, 200 << 20)
SAMPLES = st.integers(1, 10_000_000)
BUDGETS = st.integers(1, SHARD_BYTES)


@given(SAMPLE_BYTES, SAMPLES, BUDGETS)
def test_a_shard_is_a_multiple_of_a_chunk(sample_bytes, samples, budget):
    layout = plan(sample_bytes, samples, budget)
    assert layout.shard % layout.chunk == 0
    assert layout.shard >= layout.chunk


@given(SAMPLE_BYTES, SAMPLES, BUDGETS)
def test_sizes_are_within_bounds_unless_a_single_sample_is_not(sample_bytes, samples, budget):
    layout = plan(sample_bytes, samples, budget)
    assert layout.chunk * sample_bytes <= min(CHUNK_BYTES, budget) or layout.chunk == 1
    assert layout.shard * sample_bytes <= budget or layout.shard == 1


@given(SAMPLE_BYTES, SAMPLES, BUDGETS)
def test_nothing_is_larger_than_the_samples_need(sample_bytes, samples, budget):
    layout = plan(sample_bytes, samples, budget)
    assert layout.chunk <= samples
    assert layout.shard < samples + layout.chunk


@given(SAMPLE_BYTES, SAMPLES, BUDGETS)
def test_chunks_are_so_even_that_next_to_nothing_is_padding(sample_bytes, samples, budget):
    layout = plan(sample_bytes, samples, budget)
    chunks = -(-samples // layout.chunk)
    assert chunks * layout.chunk - samples < chunks


@given(st.integers(1, 200 << 20), SAMPLES)
def test_fewer_chunks_would_not_fit(sample_bytes, samples):
    layout = plan(sample_bytes, samples)
    chunks = -(-samples // layout.chunk)
    assert chunks == 1 or 2 * -(-samples // (chunks - 1)) * sample_bytes > CHUNK_BYTES
    assert (layout.shard + layout.chunk) * sample_bytes > SHARD_BYTES or layout.shard >= samples


@given(st.integers(1, 100_000), st.integers(1, BUFFER_BYTES // 100_000), SAMPLES)
def test_the_shards_of_all_layers_together_fit_the_buffer(arrays, sample_bytes, samples):
    layout = plan(sample_bytes, samples, shard_budget(arrays))
    assert arrays * layout.shard * sample_bytes <= BUFFER_BYTES


def test_few_layers_have_whole_shards():
    assert shard_budget(0) == shard_budget(1) == shard_budget(8) == SHARD_BYTES
    assert shard_budget(BUFFER_BYTES // SHARD_BYTES * 2) == SHARD_BYTES // 2
