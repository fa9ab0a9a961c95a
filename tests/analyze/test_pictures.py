"""Kinds of pictures beyond the plane and its curves: what they draw is what their tables say."""

import numpy as np
import polars as pl
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from torch import nn

import ibstore
from ibstore.analyze import Study, plots
from ibstore.analyze.plots.estimates import REGIONS
from ibstore.analyze.plots.page import Page, Panel
from ibstore.analyze.plots.style import plain_ticks
from ibstore.errors import UsageError
from tests.conftest import Command

from .stores import make_store, numbered

WAIST = "a: *=identity | quantile(bins=2)"
VALUES = "values: *=identity | exact"


@pytest.fixture(scope="module")
def study(captured, tmp_path_factory):
    """A short training of the MNIST CNN, of whose layers one is small."""
    return Study(captured, tmp_path_factory.mktemp("results"))


def lines(axis):
    return {line.get_label(): line.get_xydata() for line in axis.lines}


# ---- pages


def straight(axis):
    axis.plot([0, 1], [0, 1])


def test_a_panel_is_drawn_on_axes_of_the_users():
    figure = Figure()
    axes = figure.subplots()
    assert Page([Panel("one", straight)], 3).on(axes) is axes
    assert axes.get_title() == "one"
    assert len(axes.lines) == 1
    alone = Page([Panel("one", straight)], 3, finish=lambda figure, _: figure.suptitle("all")).on(None)
    assert alone.figure.get_suptitle() == "all"


def test_several_panels_have_no_place_on_axes():
    page = Page([Panel(f"w{number}", straight) for number in range(5)], 3)
    with pytest.raises(UsageError, match=r"makes 5 panels \('w0', 'w1', 'w2', …\), and axes hold one; filter it, or"):
        page.on(Figure().subplots())
    assert [axis.get_title() for axis in page.figure().axes] == [f"w{number}" for number in range(5)]


def test_pictures_are_at_hand_for_users(study):
    table = study.analyze(WAIST, layers="out")
    assert ibstore.plots is plots
    axes = Figure().subplots()
    assert ibstore.plots.plane(table, ax=axes) is axes
    assert axes.get_xlabel() == "I(X;T) [bits]"
    assert set(plots.KINDS) <= set(dir(plots))
    assert "Information plane" in (ibstore.plots.plane.__doc__ or "")
    assert plt.get_fignums() == []


# ---- training


def test_dynamics_are_drawn_as_the_store_has_them(study):
    table = study.ask(WAIST).measure("dynamics")
    stored = study.query("SELECT * FROM dynamics")
    assert table.select(stored.columns).equals(stored)
    axes = plots.figure("dynamics", table).axes
    assert [axis.get_title() for axis in axes] == ["gradients", "signal to noise", "weights"]
    for axis, column in zip(axes, ("gradient_mean", "snr", "weight_norm"), strict=True):
        for layer in ("conv1", "out"):
            rows = table.filter((pl.col("layer") == layer) & (pl.col("epoch") > 0))
            np.testing.assert_array_equal(lines(axis)[layer], rows.select("epoch", column).to_numpy())


def test_events_are_upright_lines():
    epochs, layers = [1, 2, 4, 8], ("one", "two")
    rows = [
        {"run": "a", "variant": "epoch", "layer": layer, "unit": "nats", "epoch": epoch, "loss_kink": 2}
        | {"snr_drop": 4 if layer == "two" else None, "gradient_mean": 1.0, "gradient_std": 2.0, "snr": 0.5}
        | {"weight_norm": None}
        for layer in layers
        for epoch in epochs
    ]
    table = pl.DataFrame(rows, schema_overrides={"weight_norm": pl.Float64})
    axes = plots.figure("dynamics", table).axes
    assert [axis.get_title() for axis in axes] == ["gradients", "signal to noise"]
    upright = [line.get_xdata()[0] for line in axes[1].lines if list(line.get_ydata()) == [0, 1]]
    assert sorted(upright) == [2, 2, 4] or sorted(upright) == [2, 4]
    names = [text.get_text() for text in axes[0].figure.legends[0].get_texts()]
    assert names == ["one", "two", "mean", "deviation", "the loss kinks", "the SNR drops"]


def test_dynamics_are_those_of_the_layers_and_epochs_that_are_asked_for(study):
    table = study.ask(WAIST, layers="out", epochs=[1]).measure("dynamics")
    assert table.select("layer", "epoch").unique().rows() == [("out", 1)]


def test_without_dynamics_there_are_none(tmp_path):
    store = tmp_path / "bare.zarr"
    with ibstore.Recorder(store, nn.Sequential(nn.Linear(2, 2)), x=torch.zeros(20, 2)) as recorder:
        recorder.record(0)
    with pytest.raises(UsageError, match="no run has dynamics of these layers; record some"):
        Study(store).ask(WAIST).measure("dynamics")


# ---- estimates


def test_a_diagram_says_every_area(study):
    table = study.ask(WAIST, epochs=[1], layers="out").measure("diagram")
    axis = plots.diagram(table)
    row = table.row(0, named=True)
    said = [text.get_text() for text in axis.texts]
    assert {f"H({name}) {row[column]:.2f}" for name, column in (("X", "h_x"), ("Y", "h_y"), ("T", "h_t"))} <= set(said)
    least = 1e-4 * sum(abs(row[name]) for name in REGIONS.values())
    numbers = sorted(f"{row[name]:.2f}" for name in REGIONS.values() if row[name] > least)
    assert set(numbers) <= set(said)


def test_circles_have_the_areas_of_their_entropies():
    entropies = {"h_x_given_ty": 5.0, "h_y_given_xt": 0.0, "h_t_given_xy": 0.0, "i_xy_given_t": 0.5}
    entropies |= {"i_xt_given_y": 3.0, "i_ty_given_x": 0.0, "i_xyt": 0.5, "h_x": 9.0, "h_y": 1.0, "h_t": 3.5}
    table = pl.DataFrame(
        [
            {**entropies, "run": "a", "epoch": 3, "layer": "out", "unit": "bits"}
            | dict.fromkeys(("waist", "estimator", "split", "channel"), "-")
        ]
    )
    axis = plots.diagram(table)
    radii = sorted(patch.get_path().get_extents().width / 2 for patch in axis.patches)
    assert axis.get_title() == "out [bits]"
    assert radii[-1] > radii[0]
    assert {"5.00", "3.00", "0.50"} <= {text.get_text() for text in axis.texts}


def test_without_labels_there_is_no_diagram(study):
    table = study.ask(WAIST, epochs=[1], layers="out").measure("diagram").with_columns(i_xyt=pl.lit(None, pl.Float64))
    with pytest.raises(UsageError, match="the diagram needs labels, and the samples have none; draw the curves"):
        plots.diagram(table)


def test_convergence_is_drawn_against_the_samples(study):
    table = study.ask(WAIST, layers="out").measure("convergence(20, 50, 100)", ["plugin", "miller_madow"])
    axes = plots.figure("convergence", table).axes
    assert [axis.get_ylabel() for axis in axes] == ["H(T) [bits]", "I(X;T) [bits]", "I(T;Y) [bits]"]
    rows = table.filter(epoch=1, quantity="h_t", estimator="plugin").sort("size")
    np.testing.assert_array_equal(lines(axes[0])["out plugin"], rows.select("size", "mean").to_numpy())
    assert axes[0].get_xticks().tolist() == rows["size"].to_list()


# ---- limits


def test_the_best_layer_is_told_by_colour_and_its_epoch_by_number(study):
    table = study.ask(WAIST, layers=["conv2", "out"]).measure("betas(count=9)")
    axis = plots.beta(table)
    drawn = np.concatenate([dots.get_offsets() for dots in axis.collections])
    assert sorted(map(tuple, drawn)) == sorted(table.select("beta", "functional").rows())
    assert {text.get_text() for text in axis.texts} == set(table["epoch"].cast(pl.String))


def test_bounds_are_drawn_against_the_epoch(study):
    table = study.ask(WAIST, layers=["out"]).measure("bounds(dimension=10)")
    axis = plots.bound(table)
    np.testing.assert_allclose(lines(axis)["out"], table.select("epoch", "input_compression").to_numpy())
    np.testing.assert_allclose(lines(axis)["classic"], table.select("epoch", "classic").to_numpy())


def test_several_networks_as_one_are_a_plane(tmp_path):
    """Of two networks on the same samples: the measure's informations, H(X) and log N as limits."""
    for seed in range(2):
        layers = {"t": np.random.default_rng(seed).uniform(-1, 1, (2, 20, 2)).astype(np.float32)}
        make_store(tmp_path / "lab.zarr", numbered(20, 2), np.arange(20) % 2, layers=layers, run=f"net{seed}")
    asked = Study(tmp_path / "lab.zarr").ask("w: x=identity | exact; *=identity | uniform(bins=3, lo=-1, hi=1)")
    table = asked.measure("extended(form=pooled)")
    axis = plots.extended(table)
    (path,) = (line for line in axis.lines if len(line.get_xdata()) == 2 and line.get_alpha() == 0.5)
    np.testing.assert_allclose(path.get_xydata(), table.select("i_xt", "i_ty").to_numpy())
    limits = [line.get_xdata()[0] for line in axis.lines if line.get_label().startswith("_") and line is not path]
    assert {round(place, 6) for place in limits[:2]} == {round(np.log2(20), 6), round(np.log2(40), 6)}


@pytest.mark.parametrize("kind", ["dynamics", "diagram", "convergence(50, 100)", "beta(count=5)", "bound"])
def test_they_are_drawn_from_the_command_line(ibstore: Command, captured, tmp_path, kind):
    waist = () if kind == "dynamics" else ("--waist", WAIST)
    chosen = ("--layer", "out", "--results", tmp_path / "results", *waist)
    done = ibstore("plot", captured, kind, *chosen, "-o", tmp_path / "a.svg")
    assert (done.code, done.out) == (0, "")
    assert (tmp_path / "a.svg").stat().st_size > 5_000


def test_arguments_of_a_picture_are_those_of_its_measure(ibstore: Command, captured, tmp_path):
    done = ibstore("plot", captured, "beta(counts=5)", "-o", tmp_path / "a.svg", "--results", tmp_path / "results")
    assert done.code == 2
    assert "measure 'betas(counts=5)'" in done.err


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ((0.6, 1.3), ["0.6", "0.8", "1", "1.2"]),
        ((0.8, 30), ["1", "2", "5", "10", "20"]),
        ((0.9, 9000), ["1", "10", "100", "1000"]),
    ],
)
def test_logarithmic_axes_name_plain_numbers(ends, told):
    axis = Figure().subplots()
    axis.set_xscale("log")
    axis.set_xlim(*ends)
    plain_ticks(axis.xaxis)
    axis.figure.canvas.draw()
    assert [text.get_text() for text in axis.get_xticklabels() if ends[0] <= text.get_position()[0] <= ends[1]] == told
    assert not any(text.get_text() for text in axis.get_xticklabels(minor=True))


# ---- what layers look like


def values_of(study, layer, epoch=1):
    run = study.store.run(study.store.run_names()[0])
    blocks = run.segment(epoch).blocks(run.manifest.splits[0], run.layer(layer), epoch)
    return np.concatenate(list(blocks)).astype(np.float64), run.probe(run.manifest.splits[0])


def grid(axis):
    """Values of an image, without the lines between maps."""
    shown = np.ma.getdata(axis.images[0].get_array())
    return shown[np.isfinite(shown)]


def test_units_are_quantiles_means_and_deviations(study):
    table = study.ask(VALUES, layers=["conv2", "out"], epochs=[1]).measure("units")
    for layer in ("conv2", "out"):
        values, _ = values_of(study, layer)
        rows = table.filter(layer=layer).sort("map", "row", "column")
        flat = values.reshape(len(values), -1)
        expected = {"q01": np.quantile(flat, 0.01, axis=0), "q99": np.quantile(flat, 0.99, axis=0)}
        expected |= {"mean": flat.mean(0), "std": flat.std(0)}
        for name, own in expected.items():
            np.testing.assert_allclose(rows[name].to_numpy(), own, rtol=1e-9, atol=1e-12)
        assert rows["number"].to_list() == list(range(flat.shape[1]))
    figure = plots.figure("units", table)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles[:4] == [f"conv2 · {name}" for name in ("0.01 quantile", "0.99 quantile", "mean", "deviation")]
    assert len(grid(figure.axes[0])) == 32 * 7 * 7
    assert sorted(grid(figure.axes[6])) == pytest.approx(sorted(table.filter(layer="out")["mean"]))


def test_a_histogram_is_numpys_class_by_class(study):
    table = study.ask(VALUES, layers="out", epochs=[1]).measure("histogram(number=3, bins=7)")
    values, probe = values_of(study, "out")
    edges = np.histogram_bin_edges(values[:, 3], 7)
    for label in range(10):
        rows = table.filter(label=label).sort("left")
        np.testing.assert_array_equal(rows["n"], np.histogram(values[probe.classes() == label, 3], edges)[0])
    np.testing.assert_allclose(table.filter(label=0)["left"], edges[:-1])
    axes = plots.figure("histogram", table).axes
    assert [axis.get_title() for axis in axes] == ["out · unit 3", "labels"]
    heights = [bar.get_height() for bar in axes[1].patches]
    assert heights == np.bincount(probe.classes()).tolist()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("histogram(number=10)", "layer 'out' has units 0 to 9, and no 10"),
        ("histogram(bins=0)", "bins is 0; give 1 or more"),
        ("samples(row=5000)", r"has rows 0 to \d+, and no 5000"),
        ("stages(row=-1)", r"has rows 0 to \d+, and no -1"),
    ],
)
def test_what_is_not_there_is_refused(study, what, message):
    with pytest.raises(UsageError, match=message):
        study.ask(VALUES, layers="out").measure(what)


def test_a_sample_is_shown_before_and_after_training(study):
    table = study.ask(VALUES, layers=["conv1", "out"]).measure("samples(row=2, most=4)")
    before, probe = values_of(study, "conv1", 0)
    after, _ = values_of(study, "conv1", 1)
    assert table.select("sample", "label").unique().rows() == [(probe.samples()[2], probe.classes()[2])]
    for epoch, values in ((0, before), (1, after)):
        rows = table.filter(layer="conv1", epoch=epoch).sort("map", "row", "column")
        np.testing.assert_array_equal(rows["value"], values[2, :4].ravel())
    figure = plots.figure("samples", table)
    assert [axis.get_title() for axis in figure.axes if axis.get_title()] == [
        f"{layer} · epoch {epoch}" for layer in ("conv1", "out") for epoch in (0, 1)
    ]
    first, second = (axis.images[0].get_clim() for axis in figure.axes[:2])
    assert first == second


def test_a_waist_is_shown_stage_by_stage(study):
    table = study.ask("w: *=maxpool(7, 7) | threshold(0.2)", layers="conv1", epochs=[1]).measure("stages(row=1)")
    values, _ = values_of(study, "conv1")
    pooled = values[1].reshape(16, 2, 7, 2, 7).max((2, 4))
    stages = {stage: table.filter(stage=stage).sort("map", "row", "column") for stage in ("layer", "reduced", "bins")}
    np.testing.assert_array_equal(stages["layer"]["value"], values[1].ravel())
    np.testing.assert_allclose(stages["reduced"]["value"], pooled.ravel(), rtol=1e-6)
    np.testing.assert_array_equal(stages["bins"]["value"], (pooled >= 0.2).ravel())
    assert stages["reduced"]["row"].max() == stages["reduced"]["column"].max() == 1
    figure = plots.figure("waist", table)
    assert [axis.get_title() for axis in figure.axes if axis.get_title()] == [
        f"conv1 · {stage}" for stage in ("layer", "reduced", "bins")
    ]


def test_neighbours_have_joint_and_product_probabilities(study):
    table = study.ask("w: *=identity | threshold(0.0)", layers="out", epochs=[1]).measure("neighbours(most=3)")
    values, _ = values_of(study, "out")
    assert table["number"].unique().sort().to_list() == [0, 4, 8]
    bins = values >= 0
    for number in (0, 4, 8):
        one, other = bins[:, number], bins[:, number + 1]
        expected = {
            (float(np.mean((one == a) & (other == b))), float(np.mean(one == a) * np.mean(other == b)))
            for a in np.unique(one)
            for b in np.unique(other)
        }
        found = set(table.filter(number=number).select("p_joint", "p_product").iter_rows())
        np.testing.assert_allclose(sorted(found), sorted(expected), rtol=1e-9)
    axis = plots.dependence(table)
    shown = table.filter(pl.col("p_joint") > 0)
    assert len(axis.collections[0].get_offsets()) == len(shown)


@pytest.mark.parametrize(
    ("kind", "measure"),
    [
        ("units", "units"),
        ("histogram", "histogram"),
        ("samples", "samples"),
        ("waist", "stages"),
        ("dependence", "neighbours(most=3)"),
    ],
)
def test_panels_of_several_runs_and_splits_are_told_apart(study, kind, measure):
    waist = VALUES if kind in {"units", "histogram", "samples"} else WAIST
    table = study.ask(waist, layers="out").measure(measure)
    single = plots.figure(kind, table)
    assert ("epoch 1" in single.get_suptitle()) == (kind != "samples")
    assert ("sample " in single.get_suptitle()) == (kind in {"samples", "waist"})
    assert ("label " in single.get_suptitle()) == (kind in {"samples", "waist"})
    others = [table.with_columns(split=pl.lit("other")), table.with_columns(run=pl.lit("second"))]
    figure = plots.figure(kind, pl.concat([table, *others]))
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert len(set(titles)) == len(titles)
    assert any("second" in title for title in titles)
    assert any("other" in title for title in titles)


def test_bars_beyond_the_colours_are_hatched():
    rows = [
        {"run": "a", "split": "train", "epoch": 1, "layer": "out", "unit": "values", "number": 0, "label": label}
        | {"left": 0.0, "right": 1.0, "n": 3}
        for label in range(10)
    ]
    bars = plots.figure("histogram", pl.DataFrame(rows)).axes[1].patches
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in bars}) == 10


@pytest.mark.parametrize(
    ("kind", "measure", "names"),
    [
        ("bound", "bounds(dimension=10)", ["out", "classic"]),
        ("dynamics", "dynamics", ["out", "mean", "deviation"]),
        ("convergence", "convergence(20, 50, 100)", ["out"]),
    ],
)
def test_lines_of_several_runs_are_named_once(study, kind, measure, names):
    table = study.ask(WAIST, layers="out").measure(measure)
    twice = pl.concat([table, table.with_columns(run=pl.lit("second"))])
    for axis in plots.figure(kind, twice).axes:
        said = [text.get_text() for text in axis.legend().get_texts()]
        assert said
        assert len(set(said)) == len(said)
    caption = plots.figure(kind, twice).get_suptitle()
    assert "second" in caption
    if kind != "convergence":
        first = plots.figure(kind, twice).axes[0].legend()
        assert [text.get_text() for text in first.get_texts()][: len(names)] == names


def test_panels_of_convergence_are_named(study):
    table = study.ask(WAIST, layers="out").measure("convergence(20, 50, 100)")
    with pytest.raises(UsageError, match=r"makes 3 panels \('H\(T\)', 'I\(X;T\)', 'I\(T;Y\)'\)"):
        plots.convergence(table)


@pytest.mark.parametrize("kind", ["units", "histogram", "samples", "waist", "dependence"])
def test_views_are_drawn_from_the_command_line(ibstore: Command, captured, tmp_path, kind):
    waist = ("--waist", WAIST) if kind in {"waist", "dependence"} else ()
    chosen = ("--layer", "out", "--results", tmp_path / "results", *waist)
    done = ibstore("plot", captured, kind, *chosen, "-o", tmp_path / "a.svg")
    assert (done.code, done.out) == (0, "")
    assert (tmp_path / "a.svg").stat().st_size > 5_000
