"""What stochastic layers say of themselves, what classifiers read in layers, and where in a picture."""

import numpy as np
import pytest
import torch
from torch import nn

from ibstore.analyze import Study, plots
from ibstore.analyze.grammar import parse_recipe
from ibstore.analyze.measures import probe as probing
from ibstore.analyze.reduce import REDUCTIONS
from ibstore.capture.arguments import Probe
from ibstore.capture.dropout import GaussianBottleneck, InformationDropout, LogNormal, divergences
from ibstore.capture.provenance import Provenance
from ibstore.capture.recorder import Recorder
from ibstore.errors import UsageError, ValuesError, WaistError

VALUES = "values: *=identity | exact"
WHAT = ["0.f", "0.alpha", "0.kl", "0.z[0]", "0.z[1]"]


@pytest.fixture
def store(tmp_path):
    return tmp_path / "lab.zarr"


def softplus():
    return InformationDropout(nn.Sequential(nn.Linear(4, 3), nn.Softplus()), nn.Linear(4, 3), LogNormal(), 1)


def record(store, layer, x, run="run0", layers=WHAT, **options):
    torch.manual_seed(0)
    with Recorder(store, nn.Sequential(layer), x=x, layers=layers, run=run, **options) as recorder:
        recorder.record(0, loss=1.5, accuracy=0.75)


@pytest.fixture
def x():
    return torch.randn(60, 4, generator=torch.Generator().manual_seed(1))


# ---- by their own account


@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_the_plane_has_the_divergence_beside_draws_of_z_alone(store, x, unit):
    record(store, softplus(), x)
    study = Study(store)
    table = study.analyze("logs: *=log | width(1.0)", unit=unit)
    kl = torch.from_numpy(_stored(study, "0.kl")).sum(1).mean().item()
    expected = kl if unit == "nats" else kl / np.log(2)
    told = dict(table.select("layer", "mean_kl").iter_rows())
    assert {layer for layer, value in told.items() if value is not None} == {"0.z[0]", "0.z[1]"}
    assert told["0.z[0]"] == pytest.approx(expected, rel=1e-5)


def _stored(study, layer):
    run = study.store.run("run0")
    return np.concatenate(list(run.segments[0].blocks(run.manifest.splits[0], run.layer(layer), 0)))


def test_a_network_without_stochastic_layers_has_none(store, x):
    record(store, nn.Linear(4, 2), x, layers=["0"])
    assert Study(store).analyze(VALUES)["mean_kl"].is_null().all()
    with pytest.raises(UsageError, match="no run has noted what stochastic layers transmit"):
        Study(store).ask(VALUES).measure("transmitted")


@pytest.mark.parametrize("kind", ["log-normal", "normal"])
def test_transmitted_is_divergence_and_total_correlation(store, x, kind):
    layer = softplus() if kind == "log-normal" else GaussianBottleneck(nn.Linear(4, 3), nn.Linear(4, 3), 1)
    record(store, layer, x)
    study = Study(store)
    row = study.ask(VALUES).measure("transmitted", unit="nats").row(0, named=True)
    f, alpha, kl = (torch.from_numpy(_stored(study, name)).double() for name in WHAT[:3])
    location = f.log() if kind == "log-normal" else f
    assert row["layer"] == "0"
    assert row["mean_kl"] == pytest.approx(kl.sum(1).mean().item(), rel=1e-5)
    assert row["tc"] == pytest.approx(divergences.total_correlation(location, alpha).item())
    assert row["tc_per_unit"] == pytest.approx(row["tc"] / 3)
    assert (row["loss"], row["accuracy"], row["error"], row["beta_kl"]) == (1.5, 0.75, 0.25, None)


def test_means_above_zero_are_no_logarithms(store, x):
    """A store says which codes are normal."""
    layer = GaussianBottleneck(nn.Sequential(nn.Linear(4, 3), nn.Softplus()), nn.Linear(4, 3), 1)
    record(store, layer, x)
    study = Study(store)
    row = study.ask(VALUES).measure("transmitted", unit="nats").row(0, named=True)
    f, alpha = (torch.from_numpy(_stored(study, name)).double() for name in WHAT[:2])
    assert f.min() > 0
    assert row["tc"] == pytest.approx(divergences.total_correlation(f, alpha).item())


def twice(store, x, **options):
    """A layer that is called twice, and one that is called once."""
    torch.manual_seed(0)
    layer = InformationDropout(nn.Sequential(nn.Linear(4, 4), nn.Softplus()), nn.Linear(4, 4), LogNormal(), 1)
    other = InformationDropout(nn.Sequential(nn.Linear(4, 2), nn.Softplus()), nn.Linear(4, 2), LogNormal(), 2)
    layers = ["0.f:1", "0.alpha:1", "0.z:0[0]", "0.z:1[0]", "2.kl"]
    with Recorder(store, nn.Sequential(layer, layer, other), x=x, layers=layers, **options) as recorder:
        recorder.record(0)


def test_of_a_layer_that_is_called_twice_each_call_is_told(store, x):
    twice(store, x)
    study = Study(store)
    rows = {row["layer"]: row for row in study.ask(VALUES).measure("transmitted", unit="nats").iter_rows(named=True)}
    assert list(rows) == ["0:0", "0:1", "2"]
    assert [row["tc"] is None for row in rows.values()] == [True, False, True]
    told = dict(study.analyze("logs: *=log | width(1.0)", unit="nats").select("layer", "mean_kl").iter_rows())
    for call in (0, 1):
        assert told[f"0.z:{call}[0]"] == pytest.approx(rows[f"0:{call}"]["mean_kl"])


def test_layers_are_asked_for_by_a_part_of_them(store, x):
    twice(store, x)
    study = Study(store)
    found = study.ask(VALUES, layers=["0.z:0[0]", "2.kl"]).measure("transmitted")
    assert found["layer"].to_list() == ["0:0", "2"]
    record(store, nn.Linear(4, 2), x, run="plain", layers=["0"])
    with pytest.raises(UsageError, match=r"no run has noted what stochastic layers transmit; .* ask of others than 0$"):
        study.ask(VALUES, runs=["plain"], layers="0").measure("transmitted")


def test_of_values_that_are_not_finite_there_is_no_total_correlation(store, x):
    layer = softplus()
    nn.init.constant_(layer.f[0].bias, torch.nan)
    record(store, layer, x)
    assert Study(store).ask(VALUES).measure("transmitted")["tc"].is_null().all()


def test_settings_in_which_runs_differ_are_columns_and_colours(store, x):
    for width, beta in ((1, 0.0), (1, 1.0), (2, 0.0), (2, 1.0)):
        options = {"width": width, "beta_kl": beta, "dropout": "information"}
        provenance = Provenance(settings={"options": options})
        record(store, softplus(), x, run=f"a-{width}-{beta}", provenance=provenance)
    table = Study(store).ask(VALUES).measure("transmitted")
    assert table["width"].to_list() == [1, 1, 2, 2]
    assert "dropout" not in table.columns
    figure = plots.figure("transmitted", table)
    names = ["0 width 1", "0 width 2", "error train width 1", "error train width 2"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names
    correlations = Study(store).ask("logs: *=log | quantile(bins=2)", layers="0.f").measure("correlation")
    assert correlations["width"].to_list() == [1, 1, 2, 2]
    figure = plots.figure("correlation", correlations)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0.f width 1", "0.f width 2"]


def test_a_panel_shows_the_split_that_knows_it(store, x):
    """Total correlation is that of the recorded split, though another one is measured."""
    provenance = Provenance(settings={"options": {"beta_kl": 0.5}})
    torch.manual_seed(0)
    with Recorder(store, nn.Sequential(softplus()), x=x, layers=WHAT, provenance=provenance) as recorder:
        recorder.record(0, test={"kl_0": 3.0, "accuracy": 0.5})
    figure = plots.figure("transmitted", Study(store).ask(VALUES).measure("transmitted"))
    panels = {axis.get_ylabel(): len(axis.lines) for axis in figure.axes}
    assert panels == {"mean KL [bits]": 1, "error": 1, "TC a unit [bits]": 1}


def test_lines_that_cannot_be_told_apart_are_refused(store, x):
    for width in range(13):
        provenance = Provenance(settings={"options": {"beta_kl": 0.5, "width": width}})
        record(store, softplus(), x, run=f"run{width}", provenance=provenance)
    with pytest.raises(UsageError, match="26 lines are more than the 24 that can be told apart; choose fewer runs"):
        plots.figure("transmitted", Study(store).ask(VALUES).measure("transmitted"))


def test_a_beta_that_no_run_says_is_asked_for(store, x):
    record(store, softplus(), x)
    with pytest.raises(UsageError, match=r"or let a Recorder say it: provenance=Provenance\(settings="):
        plots.figure("transmitted", Study(store).ask(VALUES).measure("transmitted"))


def test_of_layers_that_were_not_recorded_there_is_no_total_correlation(store, x):
    record(store, softplus(), x, layers=["0.kl"])
    row = Study(store).ask(VALUES).measure("transmitted").row(0, named=True)
    assert row["tc"] is None
    assert row["mean_kl"] > 0


# ---- what a classifier reads


def labelled(store, values, y, *, test=None, nuisance=None):
    """A store whose one layer says ``values``."""
    targets = {} if nuisance is None else {"nuisance": np.asarray(nuisance, float)}
    probes = {"train": Probe(values, y, targets=targets)}
    if test is not None:
        probes["test"] = Probe(*test)
    with Recorder(store, nn.Sequential(nn.Identity()), layers=["0"], probes=probes) as recorder:
        recorder.record(0)
    return Study(store).ask(VALUES)


def noisy_bits(count, flip, seed=0):
    """A bit through a binary symmetric channel: I = 1 − H(flip) bits."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 2, count)
    told = np.where(random.random(count) < flip, 1 - y, y)
    return torch.from_numpy(told[:, None].astype(np.float32)), y


@pytest.mark.parametrize("hidden", [0, 16])
def test_what_is_read_is_a_lower_bound_near_the_information(store, hidden):
    flip = 0.1
    asked = labelled(store, *noisy_bits(4000, flip), test=noisy_bits(4000, flip, seed=1))
    (row,) = asked.probe(hidden=hidden).iter_rows(named=True)
    information = 1 + flip * np.log2(flip) + (1 - flip) * np.log2(1 - flip)
    assert row["information"] == pytest.approx(information, abs=0.06)
    assert row["accuracy"] == pytest.approx(1 - flip, abs=0.02)
    assert (row["split"], row["n_fit"], row["n"], row["classes"]) == ("test", 4000, 4000, 2)
    assert row["h_target"] - row["cross_entropy"] == pytest.approx(row["information_raw"])


def test_nothing_is_read_where_nothing_is(store):
    random = np.random.default_rng(0)
    values = torch.from_numpy(random.normal(size=(1500, 5)).astype(np.float32))
    asked = labelled(store, values, random.integers(0, 4, 1500))
    (row,) = asked.probe().iter_rows(named=True)
    assert row["information"] < 0.03
    assert row["accuracy"] < 0.4
    assert (row["split"], row["n_fit"], row["n"]) == ("train", 1200, 300)


def test_a_target_is_read_by_its_name(store):
    random = np.random.default_rng(0)
    nuisance = random.integers(0, 3, 600)
    values = torch.from_numpy((nuisance[:, None] + 0.01 * random.normal(size=(600, 2))).astype(np.float32))
    asked = labelled(store, values, random.integers(0, 2, 600), nuisance=nuisance)
    (row,) = asked.probe("nuisance", unit="nats").iter_rows(named=True)
    assert row["accuracy"] > 0.97
    assert row["information"] == pytest.approx(np.log(3), abs=0.15)
    assert row["target"] == "nuisance"


def test_a_seed_reads_the_same(store):
    asked = labelled(store, *noisy_bits(300, 0.2))
    assert asked.probe(seed=3).equals(asked.probe(seed=3))


def test_classes_that_the_classifier_never_saw_cost_much_and_not_infinitely(store):
    values, y = noisy_bits(200, 0.1)
    asked = labelled(store, values, y, test=(values[:50], np.where(np.arange(50) < 2, 7, y[:50])))
    (row,) = asked.probe(hidden=0).iter_rows(named=True)
    assert np.isfinite(row["information_raw"])
    assert row["classes"] == 3


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("colour", {}, r"have no target 'colour'; they have y, nuisance"),
        ("nuisance", {}, r"target 'nuisance' is no class: it has \d+ values"),
        ("y", {"hidden": -1}, r"hidden is -1 and seed 0; give 0 or more"),
    ],
)
def test_what_cannot_be_read_is_refused(store, target, options, message):
    asked = labelled(store, *noisy_bits(60, 0.1), nuisance=np.linspace(0, 1, 60))
    with pytest.raises(UsageError, match=message):
        asked.probe(target, **options)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_too_few_samples_to_read_in_are_refused(store, count):
    with pytest.raises(UsageError, match=f"has {count} samples?, too few to read a target in; record 10 or more"):
        labelled(store, torch.zeros(count, 3), np.zeros(count, int)).probe()


@pytest.mark.parametrize("hidden", [0, 8])
def test_of_a_single_class_there_is_nothing_to_read(store, hidden):
    values = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    (row,) = labelled(store, values, np.full(30, 4)).probe(hidden=hidden).iter_rows(named=True)
    assert (row["accuracy"], row["h_target"], row["information"], row["classes"]) == (1.0, 0.0, 0.0, 1)
    assert row["cross_entropy"] == pytest.approx(0, abs=1e-12)


def test_layers_with_nan_are_refused(store):
    values, y = noisy_bits(60, 0.1)
    values[3] = torch.nan
    with pytest.raises(ValuesError, match="has NaN or infinities, which no classifier reads"):
        labelled(store, values, y).probe()


def test_what_is_held_back_is_a_fifth_of_each_class():
    classes = np.repeat([0, 1, 2], [50, 30, 20])
    kept, back = probing._parted(classes, 0)
    assert np.bincount(classes[back]).tolist() == [10, 6, 4]
    assert sorted([*kept, *back]) == list(range(100))


# ---- where


def pictures(store, count=4):
    random = torch.Generator().manual_seed(0)
    f = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Softplus())
    layer = InformationDropout(f, nn.Conv2d(1, 2, 1), LogNormal(), 1)
    x = torch.rand(count, 1, 3, 5, generator=random)
    record(store, layer, x, layers=["0.kl", "0.alpha"], y=np.arange(count) % 2)
    return Study(store), x


def test_maps_are_sums_of_divergences_and_means_of_the_rest(store):
    study, x = pictures(store)
    table = study.ask(VALUES).measure("maps(count=2)", unit="nats")
    assert table["layer"].unique(maintain_order=True).to_list() == ["x", "0.alpha", "0.kl"]
    assert len(table) == 3 * 2 * 3 * 5

    def picture(layer, sample):
        own = table.filter(layer=layer, sample=sample).sort("row", "column")
        return own["value"].to_numpy().reshape(3, 5)

    np.testing.assert_allclose(picture("x", 1), x[1, 0], rtol=1e-6)
    np.testing.assert_allclose(picture("0.kl", 1), _stored(study, "0.kl")[1].sum(0), rtol=1e-5)
    np.testing.assert_allclose(picture("0.alpha", 0), _stored(study, "0.alpha")[0].mean(0), rtol=1e-5)


def test_layers_without_places_have_no_maps(store, x):
    record(store, softplus(), x)
    with pytest.raises(UsageError, match="no layer of the selection has channels and places"):
        Study(store).ask(VALUES).measure("maps")
    with pytest.raises(UsageError, match="count is 0; give the number of samples"):
        Study(store).ask(VALUES).measure("maps(count=0)")


def test_maps_are_drawn_a_row_a_sample_and_a_column_a_layer(store):
    study, _ = pictures(store)
    figure = plots.figure("maps", study.ask(VALUES).measure("maps(count=3)"))
    shown, bars = figure.axes[:9], figure.axes[9:]
    assert [axis.get_title() for axis in shown[:3]] == ["x", "0.alpha", "0.kl"]
    assert all(axis.images[0].get_array().shape == (3, 5) for axis in shown)
    for column, bar in enumerate(bars):  # one scale for all samples of a layer
        values = [axis.images[0].get_array() for axis in shown[column::3]]
        assert bar.get_xlim() == pytest.approx((np.min(values), np.max(values)))


def test_a_layer_without_places_that_is_asked_for_is_refused(store, x):
    study, _ = pictures(store)
    record(store, softplus(), x, run="flat", layers=["0.kl"])
    assert set(study.ask(VALUES).measure("maps")["run"]) == {"run0"}
    with pytest.raises(UsageError, match=r"layer '0\.kl' has no channels and places; choose others"):
        study.ask(VALUES, layers="0.kl").measure("maps")


def test_pictures_of_several_runs_share_a_layers_scale(store):
    study, x = pictures(store)
    layer = InformationDropout(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Softplus()), nn.Conv2d(1, 2, 1), LogNormal(), 1)
    nn.init.constant_(layer.f[0].bias, 5.0)
    record(store, layer, x, run="run1-beta3", layers=["0.kl"])
    figure = plots.figure("maps", study.ask(VALUES, layers="0.kl").measure("maps(count=1)"))
    first = figure.axes[:4]
    assert [axis.get_title() for axis in first] == ["run0\nx", "run0\n0.kl", "run1-beta3\nx", "run1-beta3\n0.kl"]
    assert first[1].images[0].get_clim() == first[3].images[0].get_clim()


# ---- logarithms


def test_logarithms_are_taken_of_the_floor_where_values_are_less():
    block = np.array([[[1.0, 0.0], [-3.0, np.e]]], np.float32)
    np.testing.assert_allclose(REDUCTIONS["log"](block)[0], [[0, np.log(1e-4)], [np.log(1e-4), 1]], rtol=1e-6)
    np.testing.assert_allclose(REDUCTIONS["channellog"](block), [[np.log(1e-4) / 2, (1 + np.log(1e-4)) / 2]], rtol=1e-6)
    assert REDUCTIONS["log"](block).dtype == np.float32
    with pytest.raises(WaistError, match=r"the floor is 0\.0"):
        parse_recipe("log(0.0) | exact")
