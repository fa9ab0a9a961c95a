"""Data sets that are generated, or made of others, and parts of data sets."""

import hashlib
import pickle
from itertools import product
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat
from scipy.ndimage import map_coordinates
from scipy.special import ndtr, sph_harm_y

from ibstore.capture import _torchvision
from ibstore.capture.datasets import blackbox, dataset_names, load_dataset, pictures, twelve_bits
from ibstore.capture.datasets.samples import Dataset, Samples, untested
from ibstore.errors import DatasetError, UsageError

SHARED = Path(__file__).parents[3] / "shared" / "data"
NEED_NO_FILE = sorted(set(dataset_names()) - {"mnist", "cifar10", "cifar10-zca"})


def entropy(p):
    p = np.asarray(p, float)
    return -sum(float(np.sum(q[q > 0] * np.log2(q[q > 0]))) for q in (p, 1 - p)) / p.size


@pytest.mark.parametrize("name", NEED_NO_FILE)
def test_a_seed_makes_the_same_data_with_an_id_a_sample(name):
    one, again = load_dataset(name, seed=3), load_dataset(name, seed=3)
    every = one.split("all")
    np.testing.assert_array_equal(every.x, again.split("all").x)
    np.testing.assert_array_equal(every.y, again.split("all").y)
    np.testing.assert_array_equal(every.sample, np.unique(np.concatenate([one.train.sample, one.test.sample])))
    assert len(np.unique(every.sample)) == len(every)
    assert (every.x.dtype, every.y.dtype, every.sample.dtype) == (np.float32, np.int64, np.int64)


@pytest.mark.parametrize("name", ["szt", "blackbox-simple", "blackbox-complicated", "blackbox-printed", "mnist14"])
def test_what_is_drawn_hangs_on_the_seed(name):
    labels = [load_dataset(name, seed=seed).train.y for seed in (0, 1)]
    assert not np.array_equal(*labels)


def test_what_is_drawn_for_one_purpose_tells_nothing_of_another():
    """All samples' probe and the part that is trained on are two draws of the same seed from the same samples."""
    whole = load_dataset("szt", seed=0)
    trained, probe = whole.fraction(0.5, seed=0).train, whole.split("all").stratified(2048, seed=0)
    shared = len(set(trained.sample) & set(probe.sample))
    assert abs(shared - 1024) < 5 * 16  # hypergeometric: 1024 ± 16


@pytest.mark.parametrize("seed", [-1, 0.5, True, "0"])
def test_a_seed_that_is_none_is_refused(seed):
    for draw in (
        lambda: load_dataset("szt", seed=seed),
        lambda: load_dataset("mnist-sample", fraction=0.5, seed=seed),
        lambda: samples([0, 1]).stratified(1, seed),
    ):
        with pytest.raises(UsageError, match=r"the seed of the data is .*; give an integer from 0"):
            draw()


# the 12-bit set


def test_the_rule_has_one_bit_of_labels_and_099_bits_of_information():
    p = twelve_bits.label_probabilities()
    assert p.mean() == pytest.approx(0.5, abs=1e-9)
    assert entropy(p.mean()) - entropy(p) == pytest.approx(0.99, abs=1e-9)
    assert twelve_bits.information(p, np.full(4096, 1 / 4096)) == pytest.approx(0.99, abs=1e-9)


def rotations():
    """Permutations of the vertices that keep every angle, found by hand: the icosahedral group with reflections."""
    gram = twelve_bits.angles()
    found = []

    def extend(images):
        place = len(images)
        if place == len(gram):
            found.append(images)
            return
        for image in set(range(len(gram))) - set(images):
            if all(gram[image, images[other]] == gram[place, other] for other in range(place)):
                extend([*images, image])

    extend([])
    return found


def test_the_rule_is_the_same_for_every_rotation():
    p, numbers = twelve_bits.label_probabilities(), np.arange(4096)
    bits = twelve_bits.patterns().astype(int)
    group = rotations()
    assert len(group) == 120
    for images in group:
        turned = bits[:, images] @ (1 << np.arange(11, -1, -1))
        np.testing.assert_array_equal(p[turned], p[numbers])
    assert len(np.unique(p)) > 20  # else a constant would pass


def test_the_power_is_that_of_spherical_harmonics():
    golden = (1 + 5**0.5) / 2
    points = np.array([p for a, b in product((1, -1), (golden, -golden)) for p in ((0, a, b), (a, b, 0), (b, 0, a))])
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    polar, azimuth = np.arccos(points[:, 2]), np.arctan2(points[:, 1], points[:, 0])
    marked = twelve_bits.patterns()[::37].astype(float)
    for degree in range(7):
        harmonics = np.array([sph_harm_y(degree, order, polar, azimuth) for order in range(-degree, degree + 1)])
        expected = (np.abs(marked @ harmonics.T) ** 2).sum(1) * 4 * np.pi / (2 * degree + 1)
        found = twelve_bits.power(twelve_bits.pair_counts(), degree)
        np.testing.assert_allclose(found[::37], expected, atol=1e-9)


def test_labels_are_drawn_from_their_probabilities():
    drawn = load_dataset("szt", seed=5).train
    p = drawn.targets["p_y1"]
    certain = (p < 1e-9) | (p > 1 - 1e-9)
    assert certain.mean() > 0.5
    np.testing.assert_array_equal(drawn.y[certain], (p > 0.5)[certain])
    unlikely = [(each.y != (p > 0.5)).sum() for each in (load_dataset("szt", seed=seed).train for seed in range(50))]
    expected, variance = np.minimum(p, 1 - p).sum(), (p * (1 - p)).sum()
    assert abs(np.mean(unlikely) - expected) < 5 * np.sqrt(variance / 50)


def test_patterns_are_the_numbers_most_significant_bit_first():
    x = load_dataset("szt").train.x
    assert set(np.unique(x)) == {0, 1}
    np.testing.assert_array_equal(x @ (1 << np.arange(11, -1, -1)), np.arange(4096))


def write_published(path, **altered):
    path.parent.mkdir(exist_ok=True)
    content = {"F": twelve_bits.patterns().astype(np.uint8), "y": (np.arange(4096) % 3 % 2).astype(np.uint8)[None]}
    savemat(path, content | altered, do_compression=True)


@pytest.mark.parametrize("place", ["var_u.mat", "szt/var_u.mat"])
def test_labels_of_a_file_in_the_folder_are_taken(tmp_path, place):
    write_published(tmp_path / place)
    found = load_dataset("szt", tmp_path, seed=4)
    assert (found.name, len(found.test), dict(found.train.targets)) == ("var_u", 0, {})
    np.testing.assert_array_equal(found.train.y, np.arange(4096) % 3 % 2)
    np.testing.assert_array_equal(found.train.x, twelve_bits.patterns())
    np.testing.assert_array_equal(found.train.sample, np.arange(4096))


@pytest.mark.parametrize(
    "altered",
    [
        {"F": twelve_bits.patterns()[::-1].astype(np.uint8)},
        {"F": 2 * twelve_bits.patterns() - 1},
        {"y": np.ones((1, 4095), np.uint8)},
        {"y": np.full((1, 4096), 2, np.uint8)},
    ],
    ids=["in another order", "of plus and minus 1", "a label too few", "labels of another class"],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path, altered):
    write_published(tmp_path / "var_u.mat", **altered)
    with pytest.raises(DatasetError, match=r"var_u.mat does not hold the 4096 patterns of 12 bits in order, each with"):
        load_dataset("szt", tmp_path)


def test_a_file_that_is_cut_short_or_altered_is_refused(tmp_path):
    path = tmp_path / "var_u.mat"
    write_published(path)
    whole = path.read_bytes()
    broken = [whole[:length] for length in (0, 100, 130, 200, len(whole) - 1)]
    broken += [whole[:200] + bytes([whole[200] ^ 255]) + whole[201:], b"\0" * 500]
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"var_u.mat cannot be read .*; put the published file there"):
            load_dataset("szt", tmp_path)


@pytest.mark.skipif(not (SHARED / "szt").is_dir(), reason="needs szt/var_u.mat in ../shared/data")
def test_the_published_file_has_certain_labels():
    published = load_dataset("szt", SHARED)
    assert published.name == "var_u"
    assert not published.train.targets
    assert entropy(published.train.y.mean()) == pytest.approx(0.9992, abs=5e-5)
    np.testing.assert_array_equal(load_dataset("szt", SHARED / "szt").train.y, published.train.y)


def test_a_folder_without_the_file_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"there is no var_u.mat in .*; put it there, or leave --data-dir out"):
        load_dataset("szt", tmp_path)
    (tmp_path / "var_u.mat").write_bytes(b"nothing of the kind")
    with pytest.raises(DatasetError, match=r"var_u.mat cannot be read"):
        load_dataset("szt", tmp_path)


# twelve integers


def test_the_integers_are_minus_one_to_three():
    x = load_dataset("blackbox-simple").train.x
    assert x.shape == (1000, 12)
    assert np.unique(x).tolist() == [-1, 0, 1, 2, 3]


def test_the_simple_rule_is_the_mean_up_to_noise():
    data = load_dataset("blackbox-simple").train
    means = data.x.mean(1)
    clear = np.abs(means - 0.7) > 0.45
    np.testing.assert_array_equal(data.y[clear], (means > 0.7)[clear])
    assert_noise("blackbox-simple", lambda x: (x.mean(1) - 0.7) / 0.1)


def assert_noise(name, margins):
    """Labels that the noise has turned are as many as a normal one turns, with the margins in standard deviations."""
    turned = expected = variance = 0.0
    for seed in range(20):
        data = load_dataset(name, seed=seed).train
        margin = margins(data.x.astype(float))
        p = ndtr(-np.abs(margin))
        turned += np.sum(data.y != (margin > 0))
        expected, variance = expected + p.sum(), variance + (p * (1 - p)).sum()
    assert abs(turned - expected) < 4 * np.sqrt(variance)


def test_the_complicated_rule_is_of_each_row_up_to_noise():
    data = load_dataset("blackbox-complicated").train
    scores = np.array([sum(row[2 * k + 2] * row[2 * k + 3] for k in range(5)) - row[0] ** 2 for row in data.x])
    clear = np.abs(scores - scores.mean()) > 0.9
    np.testing.assert_array_equal(data.y[clear], (scores > scores.mean())[clear])
    assert clear.mean() > 0.8

    def margins(x):
        score = (x[:, 2::2] * x[:, 3::2]).sum(1) - x[:, 0] ** 2
        return (score - score.mean()) / 0.2

    assert_noise("blackbox-complicated", margins)


def test_as_printed_the_label_hangs_on_the_first_column_alone():
    data = load_dataset("blackbox-printed").train
    by_first = {value: data.y[data.x[:, 0] == value] for value in (-1, 0, 1, 2, 3)}
    assert all(len(set(labels)) == 1 for labels in by_first.values())
    assert {value for value, labels in by_first.items() if labels[0]} == {-1, 0, 1}
    assert len(data) == blackbox.SAMPLES


# digits


def test_small_digits_are_sums_of_two_by_two_pixels():
    small, digits = load_dataset("mnist14", seed=1), load_dataset("mnist-sample").split("all")
    assert small.name == "mnist14-of-mnist-sample"
    assert small.train.x.shape == (1000, 1, 14, 14)
    place = {int(sample): row for row, sample in enumerate(digits.sample)}
    for row in range(0, 1000, 97):
        pixels = np.rint(digits.x[place[int(small.train.sample[row])], 0] * 255).astype(int)
        expected = [
            [int(pixels[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].sum() / 20) for j in range(14)] for i in range(14)
        ]
        np.testing.assert_array_equal(small.train.x[row, 0], expected)


def test_larger_digits_have_three_equal_channels():
    large, digits = load_dataset("mnist-sample-rgb32"), load_dataset("mnist-sample")
    assert large.train.x.shape == (4000, 3, 32, 32)
    np.testing.assert_array_equal(large.train.x[:, 0], large.train.x[:, 2])
    np.testing.assert_array_equal(large.test.sample, digits.test.sample)
    at = (np.arange(32) + 0.5) * 28 / 32 - 0.5  # centres of the new pixels among those of the old
    for row in (0, 3999):
        expected = map_coordinates(digits.train.x[row, 0], np.meshgrid(at, at, indexing="ij"), order=1, mode="nearest")
        np.testing.assert_allclose(large.train.x[row, 1], expected, atol=1e-6)


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Two pictures a file in torchvision's own layout, their MD5 sums in the place of the real ones; no network."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    known = _torchvision.torchvision_datasets().CIFAR10
    rng, pixels = np.random.default_rng(0), {}

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def written(names):
        sums = []
        for name, _ in names:
            pixels[name] = rng.integers(0, 256, (2, 3072), dtype=np.uint8)
            sums.append([name, write(name, {"data": pixels[name], "labels": [len(pixels), 0]})])
        return sums

    monkeypatch.setattr(known, "train_list", written(known.train_list))
    monkeypatch.setattr(known, "test_list", written(known.test_list))
    meta = write(known.meta["filename"], {known.meta["key"]: list("abcdefghij")})
    monkeypatch.setattr(known, "meta", known.meta | {"md5": meta})

    def refuse(*_, **__):
        raise URLError("no network here")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)
    return folder, pixels


def test_cifar_in_place_is_read(cifar):
    folder, pixels = cifar
    found = load_dataset("cifar10", folder.parent)
    assert (found.train.x.shape, found.test.x.shape) == ((10, 3, 32, 32), (2, 3, 32, 32))
    batches = [f"data_batch_{number}" for number in range(1, 6)]
    for part, names in ((found.train, batches), (found.test, ["test_batch"])):
        expected = np.concatenate([pixels[name] for name in names]).reshape(-1, 3, 32, 32)
        np.testing.assert_array_equal(part.x, expected.astype(np.float32) / np.float32(255))
    assert found.train.y.tolist() == [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]
    assert found.test.y.tolist() == [6, 0]
    assert found.train.sample.tolist() == list(range(10))
    assert found.test.sample.tolist() == [10, 11]


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch"])
@pytest.mark.parametrize("change", ["missing", "altered"])
def test_cifar_that_is_not_whole_is_refused(cifar, name, change):
    folder, _ = cifar
    if change == "missing":
        (folder / name).unlink()
    else:  # a pickle that is not the published one is not loaded
        (folder / name).write_bytes(pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 0]}))
    with pytest.raises(DatasetError) as refusal:
        load_dataset("cifar10", folder.parent)
    message = str(refusal.value)
    assert message.startswith(f"CIFAR-10 is neither readable in {folder} nor to be downloaded (")
    assert "no network here" in message
    assert "put its folder cifar-10-batches-py at DIR and give --data-dir DIR, or take --dataset" in message


def test_whitened_pictures_have_no_correlations(cifar):
    folder, _ = cifar
    plain, found = (load_dataset(name, folder.parent) for name in ("cifar10", "cifar10-zca"))
    np.testing.assert_array_equal(found.train.sample, plain.train.sample)
    known = plain.train.x.reshape(10, -1).astype(np.float64)
    deviations, axes = np.linalg.svd(known - known.mean(0), full_matrices=False)[1:]
    scales = 1 / np.sqrt(deviations**2 / 10 + pictures.FLOOR)
    for part in ("train", "test"):
        centred = getattr(plain, part).x.reshape(-1, 3072) - known.mean(0)
        within = centred @ axes.T
        expected = (within * scales) @ axes + (centred - within @ axes) / np.sqrt(pictures.FLOOR)
        np.testing.assert_allclose(getattr(found, part).x.reshape(-1, 3072), expected, atol=2e-3)


def test_cifar_without_a_folder_is_refused():
    with pytest.raises(DatasetError, match="cifar10 comes from a folder, and none was given; put its folder cifar-10-"):
        load_dataset("cifar10")


# parts


def samples(labels):
    labels = np.asarray(labels, np.int64)
    ids = np.arange(len(labels), dtype=np.int64) * 3
    return Samples(ids[:, None].astype(np.float32), labels, ids, {"t": ids / 2})


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data())
def test_a_stratified_part_has_its_size_and_every_class_its_share(labels, data):
    whole = samples(labels)
    count = data.draw(st.integers(1, len(labels)))
    part = whole.stratified(count, data.draw(st.integers(0, 9)))
    assert len(part) == count
    assert np.all(np.diff(part.sample) > 0)
    np.testing.assert_array_equal(part.x[:, 0], part.sample)
    np.testing.assert_array_equal(part.targets["t"], part.sample / 2)
    np.testing.assert_array_equal(part.y, whole.y[part.sample // 3])
    for label in set(labels):
        share = count * labels.count(label) / len(labels)
        assert abs(np.count_nonzero(part.y == label) - share) < 1


def test_a_seed_draws_the_same_part():
    whole = samples([0, 1] * 50)
    drawn = [whole.stratified(20, seed).sample.tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("count", [0, 3])
def test_more_than_there_are_cannot_be_drawn(count):
    with pytest.raises(UsageError, match=f"{count} of 2 samples cannot be drawn"):
        samples([0, 1]).stratified(count, 0)


def test_what_is_left_over_is_tested_on_where_nothing_else_is():
    data = untested("own", samples([0, 1] * 10))
    assert (len(data.train), len(data.test), len(data.split("all"))) == (20, 0, 20)
    part = data.fraction(0.25, seed=0)
    assert (len(part.train), len(part.test), len(part.split("all"))) == (5, 15, 20)
    assert not set(part.train.sample) & set(part.test.sample)
    np.testing.assert_array_equal(part.split("all").sample, data.train.sample)


def test_what_is_left_over_is_no_test_where_there_is_one():
    whole = samples([0, 1] * 10)
    data = Dataset("own", whole.take(slice(12)), whole.take(slice(12, None)))
    part = data.fraction(0.5, seed=0)
    assert (len(part.train), len(part.test), len(part.split("all"))) == (6, 8, 20)


def test_what_a_part_of_a_part_leaves_over_stays_in_all():
    whole = samples([0, 1] * 10)
    data = Dataset("own", whole.first(12), whole.take(slice(12, None)))
    part = data.fraction(0.5, seed=0).fraction(0.5, seed=1)
    assert (len(part.train), len(part.test), len(part.split("all"))) == (3, 8, 20)
    np.testing.assert_array_equal(part.split("all").x, whole.x)
    np.testing.assert_array_equal(part.split("all").targets["t"], whole.targets["t"])


def test_all_of_them_can_be_trained_on():
    whole = samples([0, 1] * 10)
    part = untested("own", whole).fraction(1.0, seed=0)
    np.testing.assert_array_equal(part.train.sample, whole.sample)
    assert (len(part.test), part.test.x.shape, part.test.targets["t"].shape) == (0, (0, 1), (0,))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.floats(0.05, 1), st.integers(0, 9))
def test_no_sample_stands_in_two_splits_and_none_is_lost(labels, fraction, seed):
    whole = samples(labels)
    count = round(fraction * len(labels))
    if not count:
        return
    part = untested("own", whole).fraction(fraction, seed)
    assert len(part.train) == count
    np.testing.assert_array_equal(np.sort(np.concatenate([part.train.sample, part.test.sample])), whole.sample)


def test_a_limit_comes_before_a_fraction():
    data = load_dataset("mnist-sample", limit=100, fraction=0.3, seed=2)
    first = load_dataset("mnist-sample", limit=100)
    assert set(data.train.sample) < set(first.train.sample)
    assert np.bincount(data.train.y).tolist() == [3] * 10
    assert len(data.split("all")) == 1100


@pytest.mark.parametrize("part", [0.0, -1.0, 1.1, float("nan"), 1e-9])
def test_a_fraction_that_leaves_nothing_is_refused(part):
    with pytest.raises(UsageError, match=r"train_fraction is .*; give --train-fraction a number in"):
        untested("own", samples([0, 1])).fraction(part, seed=0)


def test_an_unknown_split_is_refused():
    with pytest.raises(UsageError, match="no split 'validation' of a data set; choose one of train, test, all"):
        untested("own", samples([0])).split("validation")
