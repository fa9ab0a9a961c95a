import shutil

import numpy as np
import pytest
import xarray

from ibstore.errors import CaptureError, SourceError, ValuesError
from ibstore.store import Store
from ibstore.store.exporters.export import export_run
from ibstore.store.format.probe import ProbeSet
from ibstore.store.importers import import_run
from ibstore.store.upkeep.copy import copy_runs, merge_stores
from ibstore.store.upkeep.report import Kind
from ibstore.store.upkeep.verify import verify

from . import stores

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


# ---- targets

P = np.array([0.25, 0.5, 1.0, 0.0, 1e-300, 0.1])
ANGLE = np.array([3, 1, 2, 0, -1, 5])
LABELLED = ProbeSet.of(stores.PROBE.x, stores.PROBE.y, stores.PROBE.sample, {"p_y1": P, "angle": ANGLE})
TARGETS = {"angle": ANGLE.tolist(), "p_y1": P.tolist()}
LAYERS = stores.layers()


@pytest.fixture
def store(tmp_path):
    """A run whose probe set has targets, beside one without."""
    path = stores.write_run(tmp_path / "lab.zarr", LAYERS, probe=LABELLED)
    return stores.write_run(path, LAYERS, run="plain")


def targets_of(location, run="run0"):
    found = Store.open(location).run(run)
    targets = found.probe(found.manifest.split("train")).targets()
    assert all(values.dtype == np.float64 for values in targets.values())
    return {name: values.tolist() for name, values in targets.items()}


def test_a_store_keeps_targets_beside_x_and_y(store):
    assert targets_of(store) == TARGETS
    assert targets_of(store, "plain") == {}
    run = Store.open(store).run("run0")
    probe = run.probe(run.manifest.split("train"))
    assert probe.labels().tolist() == stores.PROBE.y.tolist()
    with xarray.open_zarr(store / "data" / probe.digest, consolidated=False) as opened:
        assert set(opened) == {"x", "y", "target_p_y1", "target_angle"}
        assert opened["target_p_y1"].dims == ("sample",)
        np.testing.assert_array_equal(opened["target_p_y1"], P)
        assert opened["target_angle"].sel(sample=20) == ANGLE[3]


def test_targets_are_copied_and_merged_with_their_run(store, tmp_path):
    copied = tmp_path / "copy.zarr"
    merged = stores.write_run(tmp_path / "merged.zarr", LAYERS, run="third")
    copy_runs(store, copied, ["run0"])
    merge_stores(merged, [copied])
    for target in (copied, merged):
        assert targets_of(target) == TARGETS
        assert verify(target, deep=True).ok


def test_a_probe_set_is_verified_with_its_targets(store):
    """What lies under a digest is what the digest says, targets and their names included."""
    assert verify(store, deep=True).ok
    other = ProbeSet.of(stores.PROBE.x, stores.PROBE.y, stores.PROBE.sample, {"p_y1": P, "angles": ANGLE})
    stores.write_run(store, LAYERS, run="other", probe=other)
    shutil.rmtree(store / "data" / LABELLED.digest())
    shutil.copytree(store / "data" / other.digest(), store / "data" / LABELLED.digest())
    (found,) = verify(store, deep=True).findings
    assert found.kind is Kind.FORM
    assert f"is of data whose digest is {other.digest()}" in found.message


def test_a_target_that_was_altered_is_damage(store):
    chunk = store / "data" / LABELLED.digest() / "target_p_y1" / "c.0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + bytes([chunk.read_bytes()[-1] ^ 1]))
    (found,) = verify(store, deep=True).findings
    assert (found.kind, found.key) == (Kind.CHECKSUM, f"data/{LABELLED.digest()}/target_p_y1/c.0")


@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_targets_are_exported_and_come_back(store, tmp_path, form):
    export_run(store, "run0", tmp_path / "out", form=form)
    again = import_run(tmp_path / "out", tmp_path / "again.zarr")
    assert again.manifest == Store.open(store).run("run0").manifest  # and so the digest
    assert targets_of(tmp_path / "again.zarr") == TARGETS


def test_imported_targets_must_fit(tmp_path):
    np.savez(tmp_path / "epoch_0.npz", conv=np.zeros((3, 2), np.float32))
    np.savez(tmp_path / "inputs.npz", x=X, target_p=np.array([0.5, np.nan, 1]))
    with pytest.raises(SourceError, match=r"inputs.npz, array 'target_p': target 'p' must be finite, found nan"):
        import_run(tmp_path, tmp_path / "lab.zarr")


def test_targets_enter_the_digest_with_their_names_and_only_where_there_are_some():
    p = P[:3]
    different = ({}, {"p": p}, {"q": p}, {"p": p + 1}, {"p": p, "q": p}, {"p": p, "q": p + 1}, {"p": p + 1, "q": p})
    digests = [ProbeSet.of(X, targets=targets).digest() for targets in different]
    assert len(set(digests)) == len(different)
    assert ProbeSet.of(X, targets={"q": p, "p": p + 1}).digest() == digests[-1]  # their order tells nothing


def test_a_digest_without_targets_is_what_it_was_before_there_were_any():
    assert ProbeSet.of(X).digest() == "d6c7a369838c851d88554bf29b2e15d6"
    assert stores.PROBE.digest() == "820c1b473a0444d4e09cf486d76dccbc"


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ({"p y": X[:, 0]}, CaptureError, "a target is called 'p y'; give it a name of up to 64 letters, digits and"),
        ({"größe": X[:, 0]}, CaptureError, "a target is called 'größe'"),
        ({"": X[:, 0]}, CaptureError, "a target is called ''"),
        ({"p" * 65: X[:, 0]}, CaptureError, "a target is called 'ppp"),
        ({3: X[:, 0]}, CaptureError, "a target is called 3"),
        ({"p": X[:2, 0]}, CaptureError, r"target 'p' has shape \(2,\) where x has 3 samples; give one value a sample"),
        ({"p": X}, CaptureError, r"target 'p' has shape \(3, 2\) where x has 3 samples"),
        ({"p": np.array(["a", "b", "c"])}, ValuesError, "target 'p' must be numbers, found values of type <U1"),
        ({"p": np.array([1, 1j, 2])}, ValuesError, "target 'p' must be numbers, found values of type complex128"),
        ({"p": np.array([1, np.inf, 2])}, ValuesError, "target 'p' must be finite, found inf at sample 1; leave out"),
    ],
)
def test_targets_that_cannot_be_are_refused(targets, error, message):
    with pytest.raises(error, match=message):
        ProbeSet.of(X, targets=targets)
