import numpy as np
import pytest

from ibstore.errors import CaptureError, ValuesError
from ibstore.store.format.probe import ProbeSet

X = np.arange(6, dtype=np.float32).reshape(3, 2)


def test_samples_are_numbered_unless_they_have_ids():
    assert ProbeSet.of(X).sample.tolist() == [0, 1, 2]
    assert ProbeSet.of(X, sample=np.array([7, 3, 5], np.int32)).sample.tolist() == [7, 3, 5]
    assert ProbeSet.of(X, sample=np.array([7.0, 3.0, 5.0])).sample.dtype == np.int64


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.bool_])
def test_labels_become_int64(dtype):
    labels = ProbeSet.of(X, np.array([0, 1, 1], dtype)).y
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (np.array([0.0, 0.5, 1.0]), "found 0.5 at sample 1"),
        (np.array([0.0, 1.0, np.nan]), "found nan at sample 2"),
        (np.array([np.inf, 1.0, 1.0]), "found inf at sample 0"),
        (np.array([0.0, 1e300, 1.0]), r"found 1e\+300 at sample 1"),
        (np.array([1, 2**63, 1], np.uint64), "found 9223372036854775808 at sample 1"),
        (np.array(["a", "b", "c"]), "found values of type <U1"),
    ],
)
def test_a_label_that_is_no_integer_is_refused(labels, found):
    with pytest.raises(ValuesError, match=f"a label must be an integer, {found}; give class numbers as y"):
        ProbeSet.of(X, labels)


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        (np.array([0.1, 0.9, 1.0]), "found 0.1 at sample 0"),  # cut to integers, two of them would be one
        (np.array(["a", "b", "c"]), "found values of type <U1"),
        (np.array([0, 1, 2**64 - 1], np.uint64), "found 18446744073709551615 at sample 2"),
    ],
)
def test_a_sample_id_that_is_no_integer_is_refused(ids, found):
    with pytest.raises(CaptureError, match=f"a sample id must be an integer, {found}"):
        ProbeSet.of(X, sample=ids)


def test_integers_at_the_ends_of_int64_are_kept():
    ends = np.array([np.iinfo(np.int64).min, 0, np.iinfo(np.int64).max])
    assert ProbeSet.of(X, ends, ends).sample.tolist() == ends.tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X[:0],), "the probe set is empty; give at least one sample as x"),
        ((X, np.zeros(2, int)), r"y has shape \(2,\) where x has 3 samples; give one value a sample"),
        ((X, np.zeros((3, 1), int)), r"y has shape \(3, 1\) where x has 3 samples"),
        ((X, None, np.arange(4)), r"sample has shape \(4,\) where x has 3 samples"),
        ((X, None, np.array([1, 2, 1])), "a sample id stands twice; give every sample an id of its own"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, message):
    with pytest.raises(CaptureError, match=message):
        ProbeSet.of(*arguments)


def test_the_digest_hangs_on_every_part_and_on_nothing_else():
    y, ids = np.array([0, 1, 1]), np.array([3, 4, 5])
    probe = ProbeSet.of(X, y, ids)
    altered = X.copy()
    altered[2, 1] = np.nextafter(altered[2, 1], 9, dtype=np.float32)
    others = [
        ProbeSet.of(altered, y, ids),
        ProbeSet.of(X.astype(np.float64), y, ids),
        ProbeSet.of(X.reshape(3, 1, 2), y, ids),
        ProbeSet.of(X, np.array([0, 1, 2]), ids),
        ProbeSet.of(X, None, ids),
        ProbeSet.of(X, y),
    ]
    digests = {each.digest() for each in [probe, *others]}
    assert len(digests) == 1 + len(others)
    assert all(len(digest) == 32 and set(digest) <= set("0123456789abcdef") for digest in digests)
    assert ProbeSet.of(np.asfortranarray(X), y.astype(np.uint8), ids).digest() == probe.digest()


def test_byte_order_makes_no_other_data():
    swapped = ProbeSet.of(X.astype(X.dtype.newbyteorder()))
    assert swapped.digest() == ProbeSet.of(X).digest()
    assert swapped.x.tobytes() == X.tobytes()
