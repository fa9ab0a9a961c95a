import math
import shutil

import matplotlib as mpl
import numpy as np
import polars as pl
import pytest
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ibstore.analyze import Study, plots
from ibstore.analyze.plots.page import Page, Panel
from ibstore.analyze.plots.planes import mean_path
from ibstore.analyze.plots.style import STYLE, legend_below, short_names
from ibstore.errors import UsageError, WriteError
from tests.conftest import Command

from .stores import make_store, numbered

N = 64


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    rng = np.random.default_rng(0)
    layers = {name: rng.normal(size=(3, N, 4)).astype(np.float32) for name in ("z", "conv", "out")}
    x = rng.integers(0, 2, (N, 4)).astype(np.float32)
    store = make_store(tmp_path_factory.mktemp("plots") / "lab.zarr", x, rng.integers(0, 3, N), layers=layers)
    return Study(store)


@pytest.fixture(scope="module")
def table(study):
    return study.analyze(["a: *=identity | quantile(bins=2)", "b: x=identity | exact; *=identity | threshold(0)"])


def points(axis):
    return np.concatenate([dots.get_offsets() for dots in axis.collections])


def texts(figure):
    return [text.get_text().strip() for axis in figure.axes for text in axis.texts]


@pytest.mark.parametrize(
    ("kind", "suffix", "mark"),
    [
        ("plane", "png", b"\x89PNG"),
        ("plane", "svg", b"<?xml"),
        ("plane", "pdf", b"%PDF"),
        ("plane", "PNG", b"\x89PNG"),
        ("curves", "png", b"\x89PNG"),
    ],
)
def test_pictures_are_drawn(kind, suffix, mark, table, tmp_path):
    out = tmp_path / f"picture.{suffix}"
    plots.draw(kind, table.filter(waist="a"), out)
    assert out.read_bytes().startswith(mark)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_the_plane_shows_every_row_under_its_waist(unit, study):
    table = study.analyze(["a: *=identity | quantile(bins=2)", "b: *=identity | threshold(0)"], unit=unit)
    figure = plots.figure("plane", table)
    axes = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in axes] == ["a", "b"]
    for axis in axes:
        rows = table.filter(waist=axis.get_title())
        assert axis.get_xlabel() == f"I(X;T) [{unit}]"
        assert axis.get_ylabel() == f"I(T;Y) [{unit}]"
        assert sorted(map(tuple, points(axis))) == sorted(rows.select("i_xt", "i_ty").rows())


def test_the_plane_s_limits(table):
    figure = plots.figure("plane", table)
    for axis in figure.axes:
        rows = table.filter(waist=axis.get_title())
        dashed = [line for line in axis.lines if line.get_linestyle() != "-"]
        upright = sorted(line.get_xdata()[0] for line in dashed if line.get_xdata()[0] == line.get_xdata()[1])
        level = [line.get_ydata()[0] for line in dashed if line.get_ydata()[0] == line.get_ydata()[1]]
        assert upright == sorted([rows["h_x"][0], math.log2(N)])
        assert level == [rows["h_y"][0]]
        assert [text.get_text().strip() for text in axis.texts] == ["H(X)", "log N", "H(Y)"]
        for x, y in [*points(axis), (math.log2(N), rows["h_y"][0])]:
            assert axis.get_xlim()[0] < x < axis.get_xlim()[1]
            assert axis.get_ylim()[0] < y < axis.get_ylim()[1]


def test_log_n_has_the_unit_of_the_axis(study):
    axis = plots.figure("plane", study.analyze("a: *=identity | quantile(bins=2)", unit="nats")).axes[0]
    assert max(line.get_xdata()[0] for line in axis.lines if line.get_linestyle() != "-") == math.log(N)


def test_layers_are_told_by_colour_and_epochs_by_shade(table):
    figure = plots.figure("plane", table)
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["z", "conv", "out"]
    assert legend.get_title().get_text() == "layers · epochs 0 (light) to 2 (dark)"
    colours = [to_hex(mark.get_color()) for mark in legend.legend_handles]
    assert len(set(colours)) == 3
    for dots, colour in zip(figure.axes[0].collections, colours, strict=True):
        shades = dots.get_facecolors()[:, :3]
        assert to_hex(shades[-1]) == colour
        assert (np.diff(shades.sum(axis=1)) < 0).all()  # later is darker


def test_curves_show_every_quantity_against_the_epoch(table):
    figure = plots.figure("curves", table)
    axes = figure.axes
    assert [axis.get_title() for axis in axes] == [
        f"{layer} · {waist}" for waist in "ab" for layer in ("z", "conv", "out")
    ]
    for axis in axes:
        layer, waist = axis.get_title().split(" · ")
        rows = table.filter(layer=layer, waist=waist)
        assert len(axis.lines) == 4
        for line, quantity in zip(axis.lines, ["h_t", "i_xt", "i_ty", "ib"], strict=True):
            np.testing.assert_array_equal(line.get_xdata(), rows["epoch"])
            np.testing.assert_array_equal(line.get_ydata(), rows[quantity])
    assert [axis.get_ylabel() for axis in axes[::3]] == ["bits", "bits"]
    assert [axis.get_xlabel() for axis in axes[3:]] == ["epoch"] * 3
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["H(T)", "I(X;T)", "I(T;Y)", "I(X;T) − β·I(T;Y)"]
    assert legend.get_title().get_text() == "β = 1"


def test_runs_are_drawn_over_each_other(table):
    twice = pl.concat([table, table.with_columns(run=pl.lit("other"), i_xt=pl.col("i_xt") / 2)])
    assert len(points(plots.figure("plane", twice).axes[0])) == 2 * 9
    assert len(plots.figure("curves", twice).axes[0].lines) == 2 * 4


@pytest.mark.parametrize("waists", [1, 3, 4, 7])
def test_any_number_of_waists_finds_room(waists, table):
    many = pl.concat([table.filter(waist="a").with_columns(waist=pl.lit(f"w{number}")) for number in range(waists)])
    figure = plots.figure("plane", many)
    assert [axis.get_title() for axis in figure.axes if axis.get_visible()] == [
        f"w{number}" for number in range(waists)
    ]


@pytest.mark.parametrize("kind", ["plane", "curves"])
def test_one_epoch_is_a_picture_too(kind, table, tmp_path):
    [axis] = plots.figure(kind, table[:1]).axes
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    assert len(points(axis) if kind == "plane" else dots) == (1 if kind == "plane" else 4)
    plots.draw(kind, table[:1], tmp_path / "one.png")


@pytest.mark.parametrize("kind", ["plane", "curves", "many layers"])
def test_no_text_is_cut_off(kind, table):
    if kind == "many layers":
        one = table.filter(waist="a", layer=table["layer"][0])
        table = pl.concat([one.with_columns(layer=pl.lit(f"hidden{number}")) for number in range(7)])
        kind = "plane"
    with mpl.rc_context(STYLE):
        figure = plots.figure(kind, table)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        used = figure.get_tightbbox(canvas.get_renderer())  # in inches, of everything that is drawn
    width, height = figure.get_size_inches()
    assert 0 <= used.x0 < used.x1 <= width
    assert 0 <= used.y0 < used.y1 <= height


def test_pictures_are_fine_enough_for_a_projector(table, tmp_path):
    plots.draw("plane", table[:1], tmp_path / "plane.png")
    height, width, _ = plt.imread(tmp_path / "plane.png").shape
    inches = plots.figure("plane", table[:1]).get_size_inches()
    assert (width, height) == pytest.approx(inches * STYLE["savefig.dpi"], abs=1)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A table without labels."""
    t = np.random.default_rng(0).normal(size=(3, 20, 2)).astype(np.float32)
    store = make_store(tmp_path_factory.mktemp("bare") / "lab.zarr", numbered(20, 2), layers={"t": t})
    return Study(store).analyze("a: *=identity | quantile(bins=2)")


def test_without_labels_the_plane_is_refused(bare, tmp_path):
    with pytest.raises(
        UsageError, match="the information plane needs labels, and the samples have none; draw the curves"
    ):
        plots.draw("plane", bare, tmp_path / "plane.png")
    assert not list(tmp_path.iterdir())


def test_without_labels_the_curves_show_what_there_is(bare, tmp_path):
    plots.draw("curves", bare, tmp_path / "curves.png")
    drawn = {tuple(line.get_ydata()) for line in plots.figure("curves", bare).axes[0].lines}
    assert {tuple(bare["h_t"]), tuple(bare["i_xt"]), ()} == drawn


def test_a_split_without_labels_does_not_hide_the_others(table, bare):
    mixed = pl.concat([table.filter(waist="a"), bare.with_columns(split=pl.lit("bare"))])
    shown = points(plots.figure("plane", mixed).axes[0])
    assert np.isfinite(shown).all()
    assert len(shown) == 9


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("plain", "a.png", "there is no picture 'plain'; there are plane, curves"),
        ("plane", "a.jpg", r"a\.jpg has no known picture format; end the name in \.png, \.svg or \.pdf"),
        ("plane", "a", "has no known picture format"),
    ],
)
def test_wrong_words_are_refused(kind, name, said, table, tmp_path):
    with pytest.raises(UsageError, match=said):
        plots.draw(kind, table, tmp_path / name)
    with pytest.raises(UsageError, match=said):
        plots.check(kind, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_bits_and_nats_are_never_mixed(table, tmp_path):
    mixed = pl.concat([table, table.with_columns(unit=pl.lit("nats"))])
    with pytest.raises(UsageError, match="the table has bits and nats, which no axis holds together"):
        plots.draw("plane", mixed, tmp_path / "plane.png")


@pytest.mark.parametrize("kind", ["plane", "curves"])
def test_an_empty_table_is_refused(kind, table, tmp_path):
    with pytest.raises(UsageError, match="there is nothing to draw: the table has no row"):
        plots.draw(kind, table[:0], tmp_path / "a.png")


def test_a_picture_that_cannot_be_written_is_told(table, tmp_path):
    with pytest.raises(
        WriteError, match=r"cannot write .*none.a\.png: No such file or directory; choose another path with -o"
    ):
        plots.draw("plane", table, tmp_path / "none" / "a.png")


def test_the_user_s_own_matplotlib_is_left_alone(table, tmp_path):
    before, backend, open_figures = dict(mpl.rcParams), mpl.get_backend(), plt.get_fignums()
    for kind in ("plane", "curves"):
        plots.draw(kind, table[:1], tmp_path / "a.png")
    assert dict(mpl.rcParams) == before
    assert mpl.get_backend() == backend
    assert plt.get_fignums() == open_figures


def test_outcomes_are_drawn_against_the_number_of_most_values():
    """A colour for each rest of the settings, runs without one of them included; lines are means over seeds."""
    runs = [(width, dropout, seed) for width in (1, 2, 4) for dropout in ("binary", None) for seed in (0, 1)]
    table = pl.DataFrame(
        {
            "split": ["test"] * len(runs),
            "unit": ["nats"] * len(runs),
            "width": [width for width, _, _ in runs],
            "dropout": [dropout for _, dropout, _ in runs],
            "loss": [float(width + 10 * (dropout is None) + seed) for width, dropout, seed in runs],
            "accuracy": [None] * len(runs),
            "error": [None] * len(runs),
            "noisy_loss": [None] * len(runs),
            "kl": [None] * len(runs),
            "loss_and_kl": [None] * len(runs),
        }
    )
    (axis,) = plots.figure("outcomes", table).axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("width", "loss (test)")
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert drawn == {
        "dropout binary": [[1, 1.5], [2, 2.5], [4, 4.5]],
        "dropout –": [[1, 11.5], [2, 12.5], [4, 14.5]],
    }
    assert sum(len(dots.get_offsets()) for dots in axis.collections) == len(runs)


def test_a_legend_of_long_names_stays_within_its_picture():
    def lines(axis):
        for number in range(7):
            axis.plot([0, 1], [0, number], label=f"information dropout, width 0.25, seed {number}")

    figure = Page([Panel("one", lines)], 1, finish=legend_below).figure()
    FigureCanvasAgg(figure).draw()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width


# ---- many runs, normalized axes, films


@pytest.fixture
def runs(table):
    """The same three times, with other informations."""
    shifted = [
        table.filter(waist="a").with_columns(run=pl.lit(f"run{number}"), i_xt=pl.col("i_xt") - number / 4)
        for number in range(3)
    ]
    return pl.concat(shifted)


def test_the_mean_path_is_that_of_the_runs_with_their_spread(runs, table):
    axis = plots.plane(runs, mean=True)
    one = table.filter(waist="a")
    expected = one.with_columns(i_xt=pl.col("i_xt") - 0.25).select("i_xt", "i_ty").rows()
    np.testing.assert_allclose(sorted(map(tuple, points(axis))), sorted(expected), rtol=1e-12)
    bars = [line.get_xdata() for line in axis.lines if len(set(line.get_ydata())) == 1 and len(line.get_xdata()) == 2]
    widths = [right - left for left, right in bars if right - left == pytest.approx(0.5)]
    assert len(widths) == len(expected)  # one deviation of three values a quarter apart, both ways
    figure = plots.figure("plane", runs, mean=True)
    assert figure.get_suptitle().startswith("mean of 3 runs · ")


@pytest.fixture
def splits(runs):
    """The same of two splits, of which the second one lacks run0."""
    other = runs.filter(pl.col("run") != "run0")
    return pl.concat([runs, other.with_columns(split=pl.lit("other"), i_xt=pl.col("i_xt") / 2, h_x=pl.col("h_x") / 3)])


@pytest.mark.parametrize("normalized", [False, True])
def test_each_split_has_a_mean_path(splits, normalized):
    axis = plots.plane(splits, mean=True, normalized=normalized)
    expected = []
    for (split, _, _), own in splits.group_by("split", "layer", "epoch"):
        x, y = own["i_xt"].to_numpy(), own["i_ty"].to_numpy()
        if normalized:
            x, y = x / own["h_x"].to_numpy(), y / own["h_y"].to_numpy()
        assert len(x) == (2 if split == "other" else 3)
        expected.append((x.mean(), y.mean()))
    np.testing.assert_allclose(sorted(map(tuple, points(axis))), sorted(expected), rtol=1e-12)
    means = mean_path(splits)
    assert set(means.select("run", "split").unique().rows()) == {
        ("mean of 3 runs", splits["split"][0]),
        ("mean of 2 runs", "other"),
    }


def test_splits_of_a_plane_are_told_apart(splits):
    figure = plots.figure("plane", splits, mean=True)
    filled = [len(dots.get_facecolors()) > 0 for dots in figure.axes[0].collections]
    assert sorted(filled) == [False] * 3 + [True] * 3  # the second split's are hollow
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["z", "conv", "out", splits["split"][0], "other"]
    assert plots.figure("plane", splits).get_suptitle().startswith("runs over each other: run0, run1, run2 · ")


def test_a_film_of_means_has_the_splits(splits, tmp_path):
    plots.animate(splits, tmp_path / "film.gif", mean=True)
    assert (tmp_path / "film.gif").read_bytes().startswith(b"GIF89a")


def test_frames_of_a_film_have_one_size(table, tmp_path, monkeypatch):
    from matplotlib.animation import PillowWriter

    sizes, grab = [], PillowWriter.grab_frame

    def grabbed(writer):
        sizes.append(tuple(writer.fig.get_size_inches()))
        grab(writer)

    monkeypatch.setattr(PillowWriter, "grab_frame", grabbed)
    plots.animate(renamed(table, [f"layer {number}" for number in range(12)]), tmp_path / "film.gif")
    assert len(set(sizes)) == 1


# ---- many layers, long and foreign names, axes of the user's


def renamed(table, names):
    one = table.filter(waist="a", layer="z")
    return pl.concat([one.with_columns(layer=pl.lit(name)) for name in names])


def test_layers_beyond_the_colours_have_other_markers(table):
    figure = plots.figure("plane", renamed(table, [f"l{number}" for number in range(20)]))
    marks = [(to_hex(mark.get_color()), mark.get_marker()) for mark in figure.legends[0].legend_handles]
    assert len(set(marks)) == 20
    shapes = {len(dots.get_paths()[0].vertices) for dots in figure.axes[0].collections}
    assert len(shapes) > 1
    with pytest.raises(UsageError, match="65 lines are more than the 64 that can be told apart"):
        plots.plane(renamed(table, [f"l{number}" for number in range(65)]))


def test_many_curves_wrap(table):
    figure = plots.figure("curves", renamed(table, [f"l{number}" for number in range(10)]))
    assert figure.get_figwidth() <= 13
    assert [bool(axis.get_ylabel()) for axis in figure.axes] == [number % 4 == 0 for number in range(10)]
    assert [bool(axis.get_xlabel()) for axis in figure.axes] == [number >= 6 for number in range(10)]


def test_entropy_is_seen_beneath_information(table):
    entropy, information, *_ = plots.figure("curves", table[:9]).axes[0].lines
    assert entropy.get_linewidth() > 2 * information.get_linewidth()
    assert entropy.get_alpha() < 1


@pytest.mark.parametrize("epoch", [0, 2])
def test_one_epoch_has_a_tick_of_its_own(table, epoch):
    axis = plots.figure("curves", table.filter(waist="a", layer="z", epoch=epoch)).axes[0]
    assert axis.get_xticks().tolist() == [epoch]


@pytest.mark.parametrize("kind", ["plane", "curves"])
def test_long_names_lose_their_middle(kind, table):
    names = ["z" * 120, "short", "y" * 60 + "1" + "y" * 60, "y" * 60 + "2" + "y" * 60]
    figure = plots.figure(kind, renamed(table, names).with_columns(run=pl.lit("r" * 100)))
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    said = said if kind == "plane" else [axis.get_title().removesuffix(" · a") for axis in figure.axes]
    assert len(set(said)) == 4
    assert "short" in said
    assert max(map(len, said)) <= 32
    assert len(figure.get_suptitle()) < 60
    with mpl.rc_context(STYLE):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        used = figure.get_tightbbox(canvas.get_renderer())
    assert 0 <= used.x0 < used.x1 <= figure.get_figwidth()


def test_names_differ_when_they_are_short_too():
    names = [f"transformer.encoder.layers.{number}.attention.out" for number in (10, 11)]
    assert short_names(names)[names[0]] != short_names(names)[names[1]]
    assert short_names(["a", "b"]) == {"a": "a", "b": "b"}


def test_letters_that_the_font_lacks_warn_nobody(table, tmp_path, recwarn):
    plots.draw("plane", renamed(table, ["卷积层"]), tmp_path / "a.png")
    plots.animate(renamed(table, ["卷积层"]), tmp_path / "a.gif")
    assert not list(recwarn)


@pytest.mark.parametrize(("kind", "names"), [("plane", ["z", "conv", "out"]), ("curves", ["H(T)", "I(X;T)"])])
def test_axes_of_the_users_can_have_a_legend(kind, names, runs):
    rows = runs if kind == "plane" else runs.filter(layer="z")
    axis = getattr(plots, kind)(rows, ax=Figure().subplots())
    said = [text.get_text() for text in axis.legend().get_texts()]
    assert said[: len(names)] == names
    assert len(set(said)) == len(said) == (3 if kind == "plane" else 4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (pl.DataFrame({"unit": ["bits"], "beta": [1.0]}), "this table has no column 'run', 'waist', 'i_xt'"),
        ({"a": 1}, "a polars table, and this is dict"),
        ("lab.zarr", "a polars table, and this is str"),
    ],
)
def test_what_is_no_table_of_the_kind_is_refused(given, said):
    with pytest.raises(UsageError, match=f"^plane draws the information plane, the table of .plane.*{said}"):
        plots.plane(given)


def test_a_figure_of_no_kind_is_refused(table):
    with pytest.raises(UsageError, match="there is no picture 'nope'; there are plane, curves"):
        plots.figure("nope", table)


def test_normalized_informations_are_parts_of_entropies(study):
    bits, nats = (study.analyze("a: *=identity | quantile(bins=2)", unit=unit) for unit in ("bits", "nats"))
    axis, other = (plots.plane(table, normalized=True) for table in (bits, nats))
    expected = bits.select(pl.col("i_xt") / pl.col("h_x"), pl.col("i_ty") / pl.col("h_y")).rows()
    np.testing.assert_allclose(sorted(map(tuple, points(axis))), sorted(expected), rtol=1e-12)
    np.testing.assert_allclose(points(axis), points(other), rtol=1e-9)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("I(X;T) / H(X)", "I(T;Y) / H(Y)")


def test_without_an_entropy_of_the_input_nothing_is_a_part_of_it(study):
    table = study.analyze("a: *=identity | threshold(0)").with_columns(h_x=pl.lit(None, pl.Float64))
    with pytest.raises(UsageError, match=r"'plugin' knows no H.X., of which I.X;T. would be a part; take another one"):
        plots.plane(table, normalized=True)


def test_a_film_has_a_frame_an_epoch(table, tmp_path):
    from PIL import Image

    plots.animate(table.filter(waist="a"), tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        frames = []
        for number in range(film.n_frames):
            film.seek(number)
            frames.append((film.info["duration"], film.convert("RGB").tobytes()))
    assert len({content for _, content in frames}) == table["epoch"].n_unique()
    assert sum(length for length, _ in frames) == pytest.approx(1000 * (3 + 12) / 8, abs=100)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg here")
def test_a_film_can_be_an_mp4(table, tmp_path):
    plots.animate(table.filter(waist="a"), tmp_path / "film.mp4")
    assert (tmp_path / "film.mp4").read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize("name", ["film.mp4", "film.avi", "film"])
def test_films_that_cannot_be_made_are_refused(name, table, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match=r"needs ffmpeg, and there is none here|has no known format of films"):
        plots.animate(table, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plane",), "there is no file to draw to; give one with --out (-o), or with --animate"),
        (("curves", "--animate", "a.gif"), "--animate is about the plane, and means nothing to curves"),
        (("dynamics", "-o", "a.png", "--mean"), "--mean is about the plane, and means nothing to dynamics"),
        (("plane(1)", "-o", "a.png"), "plane takes no numbers; leave out '(1)'"),
        (("plane(", "-o", "a.png"), "plane takes no numbers; leave out '('"),
        (("curves(garbage=[", "-o", "a.png"), "curves takes no numbers; leave out '(garbage=['"),
        (("plane", "--animate", "a.png"), "a.png has no known format of films; end the name in .gif or .mp4"),
    ],
)
def test_what_is_not_about_the_picture_is_refused(ibstore: Command, captured, arguments, message):
    done = ibstore("plot", captured, *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_a_film_is_made_from_the_command_line(ibstore: Command, captured, tmp_path):
    chosen = ("--layer", "out", "--waist", "a: *=identity | quantile(bins=2)", "--results", tmp_path / "results")
    done = ibstore("plot", captured, "plane", *chosen, "--animate", tmp_path / "a.gif", "--normalized", "-q")
    assert (done.code, done.out) == (0, "")
    assert (tmp_path / "a.gif").read_bytes().startswith(b"GIF89a")
