"""Importing: what other code wrote becomes a run, number by number; what does not fit is refused before it is one."""

import pickle
import re
import sys

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from ibstore.errors import IbstoreError, ResumeError, RunExistsError, SourceError, UsageError
from ibstore.store import Encoding, Store
from ibstore.store.importers import import_run, run
from ibstore.store.importers.formats import FORMATS
from tests.store import stores

SAMPLES = 5
EPOCHS = (0, 2, 10)
CHANCE = np.random.default_rng(0)
ACTS = {
    epoch: {
        "conv1": CHANCE.normal(size=(SAMPLES, 3, 2)).astype(np.float32),
        "out": CHANCE.normal(size=(SAMPLES, 4)),
        "flag": CHANCE.integers(0, 2, SAMPLES).astype(bool),
    }
    for epoch in EPOCHS
}
"""Activations by epoch and layer: of two types, truth values, and one number a sample."""
X = np.arange(SAMPLES * 4, dtype=np.float32).reshape(SAMPLES, 2, 2)
Y = np.array([3, 1, 4, 1, 5])


def write_npz(folder, acts=ACTS, name="epoch_{}.npz"):
    folder.mkdir(exist_ok=True)
    for epoch, layers in acts.items():
        np.savez(folder / name.format(epoch), **layers)
    return folder


def write_npy(folder, acts=ACTS, name="{layer}_epoch{epoch}.npy"):
    for epoch, layers in acts.items():
        for layer, values in layers.items():
            path = folder / name.format(layer=layer, epoch=epoch)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, values)
    return folder


def write_safetensors(folder, acts=ACTS, name="epoch_{}.safetensors"):
    folder.mkdir(exist_ok=True)
    for epoch, layers in acts.items():
        save_file(layers, folder / name.format(epoch))
    return folder


def write_hdf5(path, acts=ACTS, name="epoch_{}"):
    with h5py.File(path, "w") as file:
        for epoch, layers in acts.items():
            group = file.create_group(name.format(epoch))
            for layer, values in layers.items():
                group[layer] = values
    return path


def write_pickles(folder, acts=ACTS, **more):
    folder.mkdir(exist_ok=True)
    for epoch, layers in acts.items():
        data = {"activity_tst": list(layers.values()), **more}
        content = {"epoch": epoch, "data": data, "loss": {"trn": [0.5, 0.9], "tst": 1.5 + epoch}}
        (folder / f"epoch{epoch:08d}").write_bytes(pickle.dumps(content, 2))
    return folder


WRITERS = {
    "npz": write_npz,
    "npy": write_npy,
    "safetensors": write_safetensors,
    "hdf5": write_hdf5,
    "pickle": write_pickles,
}


def imported(source, folder, **options):
    return import_run(source, folder / "lab.zarr", **options)


def values(found, layer, epoch):
    (split,) = found.manifest.splits
    return np.concatenate(list(found.segment(epoch).blocks(split, found.layer(layer), epoch)))


def assert_same(found, acts=ACTS, names=None):
    assert found.epochs == sorted(acts)
    for epoch, layers in acts.items():
        for place, (name, due) in enumerate(layers.items()):
            given_values = values(found, names[place] if names else name, epoch)
            expected = due.astype(np.uint8) if due.dtype == bool else due
            assert given_values.dtype == expected.dtype.newbyteorder("=")
            np.testing.assert_array_equal(given_values, expected)


def refusal(folder, source, error=SourceError, **options):
    """What is said of a source, of which nothing is then in the store."""
    with pytest.raises(error) as refused:
        imported(source, folder, **options)
    assert not (folder / "lab.zarr").exists() or [each.epochs for each in Store.open(folder / "lab.zarr").runs()] in (
        [],
        [[]],
    )
    return str(refused.value)


# ---- every format


@pytest.mark.parametrize("form", WRITERS)
def test_every_format_is_seen_and_gives_the_same_numbers(tmp_path, form):
    source = WRITERS[form](tmp_path / "acts")
    events = []
    found = imported(source, tmp_path, emit=events.append)
    assert_same(found, names=["layer0", "layer1", "layer2"] if form == "pickle" else None)
    assert found.name == "acts"
    assert found.manifest.splits[0].name == ("test" if form == "pickle" else "train")
    assert found.manifest.settings == {"imported": form}
    assert [event.detail for event in events if event.is_notice] == [
        "no inputs were given: X is the sample's number; give them with --x FILE"
    ]
    assert (events[-1].done, events[-1].total) == (3, 3)
    probe = found.probe(found.manifest.splits[0])
    assert not probe.has_labels
    np.testing.assert_array_equal(np.concatenate(list(probe.x_blocks())), np.arange(SAMPLES)[:, None])


def test_every_format_is_tested():
    assert set(WRITERS) == set(FORMATS)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), form=st.sampled_from(["npz", "npy", "hdf5", "safetensors"]))
def test_any_shape_type_and_order_comes_back_bit_for_bit(tmp_path_factory, data, form):
    tmp_path = tmp_path_factory.mktemp("any")
    acts = {epoch: {} for epoch in (0, 1)}
    for layer in ("a", "b"):
        kind = data.draw(
            hnp.integer_dtypes(endianness="?") | hnp.unsigned_integer_dtypes() | hnp.floating_dtypes(endianness="?")
            if form != "safetensors"
            else st.sampled_from([np.dtype(code) for code in ("f2", "f4", "f8", "i1", "i8", "u2", "?")])
        )
        shape = (3, *data.draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=3)))
        for layers in acts.values():
            drawn = data.draw(hnp.arrays(kind, shape))
            layers[layer] = np.asfortranarray(drawn) if form != "safetensors" and data.draw(st.booleans()) else drawn
    assert_same(imported(WRITERS[form](tmp_path / "acts", acts), tmp_path), acts)


def test_large_arrays_come_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("ibstore.store.importers.source.BLOCK_BYTES", 50)
    for form, write in WRITERS.items():
        found = imported(write(tmp_path / form), tmp_path)
        assert_same(found, names=["layer0", "layer1", "layer2"] if form == "pickle" else None)


def test_small_epochs_share_a_segment_and_large_ones_do_not(tmp_path, monkeypatch):
    source = write_npz(tmp_path / "acts")
    assert len(imported(source, tmp_path).segments) == 1
    size = sum(each.nbytes for each in ACTS[0].values())
    monkeypatch.setattr("ibstore.store.format.layout.SEGMENT_BYTES", 2 * size)
    found = imported(source, tmp_path, force=True)
    assert [segment.record.epochs for segment in found.segments] == [(0, 2), (10,)]
    assert_same(found)


# ---- names


@pytest.mark.parametrize("name", ["epoch{}.npz", "epoch-{:05d}.npz", "mnist_epoch_{}.npz", "{:03d}.npz", "step_{}.npz"])
def test_names_of_epoch_files(tmp_path, name):
    assert_same(imported(write_npz(tmp_path / "acts", name=name), tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        "{layer}_epoch{epoch}.npy",
        "{layer}.epoch-{epoch:04d}.npy",
        "{layer}/{epoch:04d}.npy",
        "{layer}/epoch_{epoch}.npy",
        "epoch_{epoch}/{layer}.npy",
    ],
)
def test_names_of_layer_files(tmp_path, name):
    assert_same(imported(write_npy(tmp_path / "acts", name=name), tmp_path))


def test_layers_stand_in_the_files_order_or_that_of_their_numbers_or_as_asked(tmp_path):
    layers = {name: np.zeros((2, 1)) for name in ("layer10", "layer9", "b")}

    def order(source, **options):
        found = imported(source, tmp_path, force=True, **options)
        return [layer.name for layer in found.manifest.layers]

    assert order(write_npz(tmp_path / "npz", {0: layers})) == ["layer10", "layer9", "b"]
    for form in ("npy", "hdf5"):
        assert order(WRITERS[form](tmp_path / form, {0: layers})) == ["b", "layer9", "layer10"]
    assert order(tmp_path / "npz", layers=["b", "layer10"]) == ["b", "layer10"]


def test_a_single_file_is_an_epoch(tmp_path):
    write_npz(tmp_path / "acts")
    assert imported(tmp_path / "acts" / "epoch_2.npz", tmp_path).epochs == [2]


def test_what_is_no_array_is_passed_over(tmp_path):
    source = write_npz(tmp_path / "acts")
    (source / "README.md").write_text("about")
    (source / ".hidden_epoch_7.npz").write_text("left by a copy")
    (source / "manifest.json").write_text("{}")  # another program's
    assert_same(imported(source, tmp_path))


# ---- inputs and labels


def test_inputs_and_labels_lie_in_files_of_their_own(tmp_path):
    source = write_npz(tmp_path / "acts")
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "labels.npz", other=X, y=Y.astype(np.float32))
    save_file({"anything": Y}, tmp_path / "y.safetensors")
    for file in ("labels.npz", "y.safetensors"):
        found = imported(source, tmp_path, x=tmp_path / "x.npy", y=tmp_path / file, force=True, split="probe")
        (split,) = found.manifest.splits
        assert split.name == "probe"
        np.testing.assert_array_equal(np.concatenate(list(found.probe(split).x_blocks())), X)
        np.testing.assert_array_equal(found.probe(split).labels(), Y)


def test_inputs_and_labels_lie_beside_the_epochs(tmp_path):
    ids = np.array([7, 3, 5, 11, 2])
    for place, source in enumerate((write_npz(tmp_path / "a"), write_npy(tmp_path / "b"))):
        if place:
            for name, each in (("x", X), ("y", Y), ("sample", ids)):
                np.save(source / f"{name}.npy", each)
        else:
            np.savez(source / "inputs.npz", x=X, y=Y, sample=ids)
        found = imported(source, tmp_path)
        probe = found.probe(found.manifest.splits[0])
        np.testing.assert_array_equal(np.concatenate(list(probe.x_blocks())), X)
        np.testing.assert_array_equal(probe.labels(), Y)
        np.testing.assert_array_equal(probe.samples(), ids)


def with_each(**more):
    return {epoch: {**layers, **more} for epoch, layers in ACTS.items()}


def test_labels_and_ids_within_the_epochs_are_no_layers_and_must_stay_the_same(tmp_path):
    acts = with_each(x=X + np.nan, y=Y, sample=np.arange(SAMPLES) + 4)
    found = imported(write_npz(tmp_path / "acts", acts), tmp_path)
    assert [layer.name for layer in found.manifest.layers] == ["conv1", "out", "flag"]
    probe = found.probe(found.manifest.splits[0])
    np.testing.assert_array_equal(probe.labels(), Y)
    np.testing.assert_array_equal(probe.samples(), np.arange(SAMPLES) + 4)
    np.testing.assert_array_equal(np.concatenate(list(probe.x_blocks())), X + np.nan)


@pytest.mark.parametrize(("name", "values_there"), [("x", X), ("y", Y), ("sample", np.arange(SAMPLES))])
def test_samples_in_another_order_at_one_epoch_are_refused(tmp_path, name, values_there):
    acts = with_each(**{name: values_there})
    acts[2] = {**acts[2], name: values_there[::-1]}
    said = refusal(tmp_path, write_npz(tmp_path / "acts", acts))
    assert f"{tmp_path}/acts/epoch_2.npz, array '{name}' is not what the run has" in said
    assert "the same samples in the same order" in said
    assert not (tmp_path / "lab.zarr").exists()


def test_a_layer_may_be_called_y_where_it_is_asked_for(tmp_path):
    found = imported(write_npz(tmp_path / "acts", with_each(y=Y)), tmp_path, layers=["y"])
    np.testing.assert_array_equal(values(found, "y", 2), Y)
    assert not found.probe(found.manifest.splits[0]).has_labels


def test_given_labels_and_inputs_take_the_place_of_those_in_the_files(tmp_path):
    np.save(tmp_path / "mine.npy", Y + 1)
    source = write_npz(tmp_path / "acts", with_each(x=X, y=Y))
    found = imported(source, tmp_path, x=tmp_path / "mine.npy", y=tmp_path / "mine.npy")
    probe = found.probe(found.manifest.splits[0])
    np.testing.assert_array_equal(probe.labels(), Y + 1)
    np.testing.assert_array_equal(np.concatenate(list(probe.x_blocks())), Y + 1)


def test_layers_that_are_named_twice_are_recorded_once(tmp_path):
    found = imported(write_npz(tmp_path / "acts"), tmp_path, layers=["out", "conv1", "out"])
    assert [layer.name for layer in found.manifest.layers] == ["out", "conv1"]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.array([1, np.nan, 2, 3, 4]), "y.npy: a label must be an integer, found nan at sample 1"),
        (np.array([1, 2.5, 2, 3, 4]), "y.npy: a label must be an integer, found 2.5 at sample 1"),
        (np.arange(4), "y.npy has 4 samples where {acts}/epoch_0.npz has 5; give y of the samples that were recorded"),
        (np.eye(5), "y.npy: y has shape (5, 5) where x has 5 samples"),
        (np.array(list("abcde")), "y.npy has values of type <U1; only real numbers of up to 64 bits are imported"),
        (np.array(3), "y.npy is a single number"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, labels, said):
    source = write_npz(tmp_path / "acts")
    np.save(tmp_path / "y.npy", labels)
    assert said.format(acts=source) in refusal(tmp_path, source, y=tmp_path / "y.npy")


def test_sample_ids_that_do_not_fit_are_refused(tmp_path):
    source = write_npz(tmp_path / "acts")
    for ids, said in (
        (np.array([1, 1, 2, 3, 4]), "sample.npy: a sample id stands twice; give every sample an id of its own"),
        (np.array([1, np.nan, 2, 3, 4]), "sample.npy: a sample id must be an integer, found nan at sample 1"),
    ):
        np.save(source / "sample.npy", ids)
        assert said in refusal(tmp_path, source)


def test_inputs_that_do_not_fit_are_refused(tmp_path):
    source = write_npz(tmp_path / "acts")
    np.save(tmp_path / "x.npy", X[:3])
    assert "x.npy has 3 samples where" in refusal(tmp_path, source, x=tmp_path / "x.npy")
    np.savez(tmp_path / "two.npz", a=X, b=X)
    said = refusal(tmp_path, source, UsageError, x=tmp_path / "two.npz")
    assert "two.npz has no array 'x' among several (a, b); give a file with one, or name it so" in said
    assert "give a file that ends in .npy, .npz, .safetensors" in refusal(tmp_path, source, UsageError, x="x.mat")
    assert "no.npy cannot be read (No such file or directory)" in refusal(tmp_path, source, x=tmp_path / "no.npy")
    np.save(tmp_path / "object.npy", np.array([None] * 5), allow_pickle=True)
    assert "object.npy cannot be read (" in refusal(tmp_path, source, x=tmp_path / "object.npy")


# ---- what does not fit is refused, with the file's name, before anything is committed


def changed(epoch, **layers):
    return {**ACTS, epoch: {name: each for name, each in {**ACTS[epoch], **layers}.items() if each is not None}}


MISFITS = {
    "shape": (changed(10, conv1=np.zeros((SAMPLES, 3, 3), np.float32)), "has shape (5, 3, 3) where (5, 3, 2) is due"),
    "samples": (changed(10, out=np.zeros((SAMPLES - 1, 4))), "has shape (4, 4) where (5, 4) is due"),
    "samples in the first": (changed(0, out=np.zeros((SAMPLES - 1, 4))), "has shape (4, 4) where (5, 4) is due"),
    "type": (changed(10, out=np.zeros((SAMPLES, 4), np.float32)), "has type float32 where float64 is due"),
    "missing": (changed(10, out=None), "has no layer 'out', which"),
    "more": (changed(10, fc=np.zeros(SAMPLES)), "has a layer 'fc', which"),
}


@pytest.mark.parametrize("form", ["npz", "npy", "safetensors", "hdf5"])
@pytest.mark.parametrize("misfit", MISFITS)
def test_epochs_that_differ_are_refused_before_a_store_is_made(tmp_path, form, misfit):
    acts, said = MISFITS[misfit]
    found = refusal(tmp_path, WRITERS[form](tmp_path / "acts", acts))
    assert said in found
    assert f"{tmp_path}/acts" in found
    assert re.search(r"epoch[_ ]?(0|10)\b", found)
    assert not (tmp_path / "lab.zarr").exists()


def test_pickles_are_known_when_they_are_read_and_never_half_committed(tmp_path, monkeypatch):
    monkeypatch.setattr("ibstore.store.format.layout.SEGMENT_BYTES", 1)  # an epoch a segment
    source = write_pickles(tmp_path / "acts", changed(10, conv1=np.zeros((SAMPLES, 9))))
    with pytest.raises(SourceError, match=r"epoch00000010, activity_tst\[0\] has shape \(5, 9\) where \(5, 3, 2\)"):
        imported(source, tmp_path)
    found = Store.open(tmp_path / "lab.zarr").run("acts")
    assert found.epochs == [0, 2]
    assert list(stores.segment_folder(tmp_path / "lab.zarr", 10, "acts").parent.glob("*10*")) == []
    write_pickles(source)
    found = imported(source, tmp_path, resume=True)
    assert_same(found, names=["layer0", "layer1", "layer2"])


@pytest.mark.parametrize("form", ["npz", "npy", "safetensors"])
def test_an_epoch_twice_is_refused(tmp_path, form):
    source = WRITERS[form](tmp_path / "acts")
    again = {"npy": "conv1_epoch002.npy"}.get(form, f"epoch_002.{form}")
    first = {"npy": "conv1_epoch2.npy"}.get(form, f"epoch_2.{form}")
    (source / again).write_bytes((source / first).read_bytes())
    said = refusal(tmp_path, source)
    assert "is there twice" in said
    assert again in said
    assert first in said


@pytest.mark.parametrize(
    ("form", "name", "said"),
    [
        ("npz", "final.npz", "final.npz names no epoch; call it epoch_3.npz"),
        ("safetensors", "final.safetensors", "final.safetensors names no epoch; call it epoch_3.safetensors"),
        ("npy", "conv1.npy", "conv1.npy names no layer and epoch; call it conv1_epoch3.npy, conv1/3.npy or"),
        ("npz", "epoch_3.npz", "epoch_3.npz cannot be read (File is not a zip file)"),
        ("npy", "conv1_epoch3.npy", "conv1_epoch3.npy cannot be read ("),
        ("safetensors", "epoch_3.safetensors", "epoch_3.safetensors cannot be read (Error while deserializing"),
        ("pickle", "epoch00000003", "epoch00000003 cannot be read ("),
    ],
)
def test_files_that_are_not_what_they_should_be_are_named(tmp_path, form, name, said):
    source = WRITERS[form](tmp_path / "acts")
    (source / name).write_bytes(b"something else, of some length, that no reader knows as its own")
    with pytest.raises(SourceError) as refused:
        imported(source, tmp_path)
    assert said in str(refused.value)


def test_no_pickle_within_numpy_files_is_loaded(tmp_path):
    for form in ("npz", "npy"):
        source = WRITERS[form](tmp_path / form, {0: {"a": np.array([1, None] * 3)}})
        assert str(tmp_path) in refusal(tmp_path, source)


@pytest.mark.parametrize("form", ["npz", "npy", "safetensors"])
@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused_before_anything_is_committed(tmp_path, form, cut):
    source = WRITERS[form](tmp_path / "acts")
    (path, *_) = sorted(source.glob("*10.*"))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut)])
    assert str(path) in refusal(tmp_path, source)
    assert not (tmp_path / "lab.zarr").exists()


def test_a_flipped_byte_in_a_zip_is_found_and_the_epoch_not_committed(tmp_path):
    source = write_npz(tmp_path / "acts")
    content = bytearray((source / "epoch_10.npz").read_bytes())
    place = content.index(ACTS[10]["out"].tobytes())
    content[place] ^= 1
    (source / "epoch_10.npz").write_bytes(content)
    assert "epoch_10.npz, array 'out' cannot be read (Bad CRC-32" in refusal(tmp_path, source)


@pytest.mark.parametrize(
    ("values_of_layer", "said"),
    [
        (np.zeros((SAMPLES, 2), complex), "has values of type complex128; only real numbers of up to 64 bits"),
        (np.zeros((SAMPLES, 2), "f4,i4"), "has values of type [('f0', '<f4'), ('f1', '<i4')]; only real numbers"),
        (np.zeros(SAMPLES, "U3"), "has values of type <U3; only real numbers"),
        (np.zeros(SAMPLES, np.longdouble), "only real numbers of up to 64 bits are imported: convert it"),
        (np.array(1.0), "is a single number; an array of one row a sample is due"),
        (np.zeros((0, 3)), "the probe set is empty"),
    ],
)
def test_layers_that_are_no_real_numbers_of_samples_are_refused(tmp_path, values_of_layer, said):
    assert said in refusal(tmp_path, write_npz(tmp_path / "acts", {0: {"a": values_of_layer}}))


def test_a_duplicate_array_in_a_zip_is_refused(tmp_path):
    source = write_npz(tmp_path / "acts", {0: {"a": np.zeros(2)}})
    import zipfile

    with zipfile.ZipFile(source / "epoch_0.npz", "a") as archive:
        archive.writestr("a", b"")  # the name that a.npy is known by
    assert "array 'a' is there twice" in refusal(tmp_path, source)


# ---- which format


def test_a_source_whose_format_cannot_be_told_is_refused(tmp_path):
    assert f"there is nothing at {tmp_path}/no" in refusal(tmp_path, tmp_path / "no", UsageError)
    (tmp_path / "empty").mkdir()
    said = refusal(tmp_path, tmp_path / "empty")
    assert "has no activations that are known" in said
    assert "docs/moving.md lists names and layouts" in said
    (tmp_path / "notes.txt").write_text("text")
    assert "notes.txt has no activations that are known" in refusal(tmp_path, tmp_path / "notes.txt")
    assert "as npz" in refusal(tmp_path, tmp_path / "empty", form="npz")
    assert "there is no format 'mat'" in refusal(tmp_path, tmp_path / "empty", UsageError, form="mat")


def test_several_formats_are_told_apart_by_the_user(tmp_path):
    source = write_safetensors(write_npz(tmp_path / "acts"))
    said = refusal(tmp_path, source, UsageError)
    assert "has files of several formats (npz, safetensors); choose one with --format" in said
    assert_same(imported(source, tmp_path, form="safetensors"))


# ---- safetensors


def test_bfloat16_becomes_float32_exactly(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    halves = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    tensors = {"a": halves.reshape(4, -1), "wide": torch.zeros(4, dtype=torch.float64)}
    (tmp_path / "acts").mkdir()
    save_torch(tensors, tmp_path / "acts" / "epoch_0.safetensors")
    found = imported(tmp_path / "acts", tmp_path)
    np.testing.assert_array_equal(values(found, "a", 0), tensors["a"].float().numpy())  # every bfloat16 there is
    assert found.layer("a").dtype == "float32"


def test_types_that_numpy_does_not_have_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    (tmp_path / "acts").mkdir()
    save_torch({"a": torch.zeros(3).to(torch.float8_e4m3fn)}, tmp_path / "acts" / "epoch_0.safetensors")
    assert "tensor 'a' is of type F8_E4M3; only F16, F32, F64" in refusal(tmp_path, tmp_path / "acts")


# ---- HDF5


def test_hdf5_attributes_are_metrics_and_datasets_beside_the_epochs_are_inputs(tmp_path):
    path = write_hdf5(tmp_path / "acts.h5", name="{}")
    with h5py.File(path, "a") as file:
        file["x"], file["y"] = X, Y
        for epoch in EPOCHS:
            file[str(epoch)].attrs.update({"loss": 0.5 + epoch, "step": 100 * epoch, "by": "hand", "list": [1, 2]})
    found = imported(path, tmp_path)
    assert_same(found)
    (segment,) = found.segments
    assert segment.record.steps == (0, 200, 1000)
    assert segment.record.metrics == tuple({"train": {"loss": 0.5 + epoch}} for epoch in EPOCHS)
    probe = found.probe(found.manifest.splits[0])
    np.testing.assert_array_equal(np.concatenate(list(probe.x_blocks())), X)
    np.testing.assert_array_equal(probe.labels(), Y)


def test_hdf5_files_that_lead_elsewhere_are_refused(tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(8 * SAMPLES))
    other = write_hdf5(tmp_path / "other.h5")

    def soft(group):
        group["a"] = h5py.SoftLink("/epoch_2/out")

    def elsewhere(group):
        group["a"] = h5py.ExternalLink(str(other), "/epoch_2/out")

    def external(group):
        group.create_dataset("a", (SAMPLES,), "f8", external=[(str(secret), 0, 8 * SAMPLES)])

    def virtual(group):
        layout = h5py.VirtualLayout((SAMPLES, 4), "f8")
        layout[:] = h5py.VirtualSource(str(other), "/epoch_2/out", (SAMPLES, 4))
        group.create_virtual_dataset("a", layout)

    for number, (add, said) in enumerate(
        [(soft, "'a' is a link"), (elsewhere, "'a' is a link"), (external, "in other files"), (virtual, "other files")]
    ):
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w") as file:
            add(file.create_group("epoch_0"))
        assert said in refusal(tmp_path, path)


@pytest.mark.parametrize(
    ("add", "said"),
    [
        (lambda file: file.create_group("weights"), "has a group 'weights', which names no epoch; call it epoch_3"),
        (lambda file: file.create_dataset("loss", data=[1.0]), "has a dataset 'loss' outside of its epochs"),
        (lambda file: file["epoch_2"].create_group("more"), "group /epoch_2 has a group 'more' where a layer's"),
        (lambda file: file["epoch_2"].create_dataset("text", data=["a"] * SAMPLES), "has a layer 'text'"),
        (lambda file: file.create_group("epoch_002"), "epoch 2 is there twice, in epoch_002 and in epoch_2"),
    ],
)
def test_hdf5_files_laid_out_otherwise_are_refused(tmp_path, add, said):
    path = write_hdf5(tmp_path / "acts.h5")
    with h5py.File(path, "a") as file:
        add(file)
    assert said in refusal(tmp_path, path)


def test_without_h5py_the_message_says_how_to_have_it(tmp_path, monkeypatch):
    path = write_hdf5(tmp_path / "acts.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "needs h5py; pip install 'ibstore[hdf5]'" in refusal(tmp_path, path, UsageError)


# ---- pickles as the code of Saxe et al. writes them


def test_losses_and_gradients_become_metrics(tmp_path):
    dynamics = {"weights_norm": [1.0, np.float32(2.0), 3], "gradstd": [np.float64(0.5)] * 3, "other": "text"}
    found = imported(write_pickles(tmp_path / "acts", **dynamics), tmp_path, split="probe")
    first = found.segments[0].record.metrics[0]
    assert first["test"] == {"loss": 1.5}
    assert first["train"] == {
        "loss": 0.5,
        "accuracy": 0.9,
        **{f"weights_norm.layer{number}": number + 1.0 for number in range(3)},
        **{f"gradstd.layer{number}": 0.5 for number in range(3)},
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "it has no dict 'data'"),
        ({"data": {}}, "its data have no list of arrays 'activity_tst'"),
        ({"data": {"activity_tst": [1.0]}}, "its data have no list of arrays 'activity_tst'"),
        ({"data": {"activity_tst": [np.zeros(3)]}, "epoch": 4}, "it says that it is epoch 4"),
        ({"data": {"activity_tst": []}}, "has no layer"),
    ],
)
def test_pickles_of_another_shape_are_refused(tmp_path, content, said):
    (tmp_path / "acts").mkdir()
    (tmp_path / "acts" / "epoch00000003").write_bytes(pickle.dumps(content))
    found = refusal(tmp_path, tmp_path / "acts")
    assert said in found
    assert "epoch00000003" in found


# ---- the run


def test_a_run_is_not_replaced_against_the_users_will(tmp_path):
    source = write_npz(tmp_path / "acts")
    imported(source, tmp_path)
    with pytest.raises(RunExistsError, match="run 'acts' is already in the store with 3 epochs"):
        imported(source, tmp_path)
    write_npz(source, changed(0, conv1=ACTS[0]["conv1"] + 1))
    assert_same(imported(source, tmp_path, force=True), changed(0, conv1=ACTS[0]["conv1"] + 1))
    assert imported(source, tmp_path, run="other").name == "other"


def test_an_import_that_was_cut_short_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("ibstore.store.format.layout.SEGMENT_BYTES", 1)
    source = write_npz(tmp_path / "acts")
    with monkeypatch.context() as patch:
        patch.setattr(run, "_append", stores.calls_before(run._append, 2, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            imported(source, tmp_path)
    assert Store.open(tmp_path / "lab.zarr").run("acts").epochs == [0, 2]
    found = imported(source, tmp_path, resume=True)
    assert_same(found)
    (source / "epoch_2.npz").unlink()
    with pytest.raises(ResumeError, match=r"run 'acts' has epochs 0, 2, 10, which are not the first ones of .*0, 10"):
        imported(source, tmp_path, resume=True)


def test_numbers_are_coded_as_asked(tmp_path):
    found = imported(write_npz(tmp_path / "acts"), tmp_path, encoding=Encoding("none", 1 << 12))
    assert (found.manifest.codec, found.manifest.chunk_bytes) == ("none", 1 << 12)
    assert_same(found)


def test_unknown_layers_are_named(tmp_path):
    said = refusal(tmp_path, write_npz(tmp_path / "acts"), UsageError, layers=["conv1", "conv9"])
    assert "epoch_0.npz has no layer 'conv9'; it has conv1, out, flag" in said


@pytest.mark.parametrize("number", ["10000000000", "9223372036854775808", "9" * 400])
def test_numbers_too_large_for_an_epoch_are_refused(tmp_path, number):
    acts = write_npz(tmp_path / "acts")
    (acts / f"epoch_{number[:200]}.npz").write_bytes((acts / "epoch_0.npz").read_bytes())
    with pytest.raises(SourceError, match=f"{number[:30]}.* is too large for an epoch's number; give .* 9999999999"):
        import_run(acts, tmp_path / "lab.zarr")
    assert not (tmp_path / "lab.zarr").exists()


def test_a_layer_without_values_is_refused(tmp_path):
    acts = write_npz(tmp_path / "acts", {0: {"a": np.ones((SAMPLES, 2)), "none": np.ones((SAMPLES, 0))}})
    with pytest.raises(SourceError, match="array 'none' has no values; leave it out with --layers"):
        import_run(acts, tmp_path / "lab.zarr")
    assert not (tmp_path / "lab.zarr").exists()
    assert [layer.name for layer in import_run(acts, tmp_path / "lab.zarr", layers=["a"]).manifest.layers] == ["a"]


def test_every_refusal_is_one_of_ours(tmp_path):
    assert issubclass(SourceError, IbstoreError)
    assert not issubclass(SourceError, UsageError)
