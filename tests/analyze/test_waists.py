import re

import pytest

from ibstore.analyze import Waist, load_waists, parse_recipe, parse_waist, presets
from ibstore.analyze.grammar import EXACT
from ibstore.analyze.waist import find_waists, preset_text
from ibstore.errors import UnknownNameError, UsageError, WaistError

HALVES = "quantile(bins=2)"
CODE = "thesis_edges(num=2)"
POOLED_X = "maxpool(4, 4) | threshold(0.5)"
SMALL_OUT = "softmax | threshold(0.5)"
POOLED_X_CODE = "maxpool(4, 4) | edges(0, 0.5)"
SMALL_OUT_CODE = "softmax | edges(0, 0.5)"

# The table: x, conv1, conv2, out.
THESIS = {
    "thesis-6.1": ("identity | threshold(0.5)", *3 * [f"identity | {HALVES}"]),
    "thesis-6.2": (POOLED_X, f"maxpool(1, 4, 4) | {HALVES}", f"maxpool(1, 3, 3) | {HALVES}", SMALL_OUT),
    "thesis-6.3-ex1": (POOLED_X, f"maxpool(2, 4, 4) | {HALVES}", f"maxpool(2, 3, 3) | {HALVES}", SMALL_OUT),
    "thesis-6.3-ex2": (POOLED_X, f"maxpool(4, 4, 4) | {HALVES}", f"maxpool(4, 3, 3) | {HALVES}", SMALL_OUT),
    "thesis-6.3-ex3": (POOLED_X, f"maxpool(1, 7, 7) | {HALVES}", f"maxpool(1, 7, 7) | {HALVES}", SMALL_OUT),
    "thesis-6.3-ex4": (POOLED_X, f"avgpool(1, 7, 7) | {HALVES}", f"avgpool(1, 7, 7) | {HALVES}", SMALL_OUT),
    "thesis-6.1-code": ("identity | edges(0, 0.5)", *3 * [f"identity | {CODE}"]),
    "thesis-6.2-code": (POOLED_X_CODE, f"maxpool(1, 4, 4) | {CODE}", f"maxpool(1, 3, 3) | {CODE}", SMALL_OUT_CODE),
    "thesis-6.3-ex1-code": (POOLED_X_CODE, f"maxpool(2, 4, 4) | {CODE}", f"maxpool(2, 3, 3) | {CODE}", SMALL_OUT_CODE),
    "thesis-6.3-ex2-code": (POOLED_X_CODE, f"maxpool(4, 4, 4) | {CODE}", f"maxpool(4, 3, 3) | {CODE}", SMALL_OUT_CODE),
    "thesis-6.3-ex3-code": (POOLED_X_CODE, f"maxpool(1, 7, 7) | {CODE}", f"maxpool(1, 7, 7) | {CODE}", SMALL_OUT_CODE),
    "thesis-6.3-ex4-code": (POOLED_X_CODE, f"avgpool(1, 7, 7) | {CODE}", f"avgpool(1, 7, 7) | {CODE}", SMALL_OUT_CODE),
}


def test_the_presets_are_the_thesis_s_table():
    expected = {
        name: Waist(name, tuple(zip(("x", "conv1", "conv2", "out"), map(parse_recipe, texts), strict=True)))
        for name, texts in THESIS.items()
    }
    assert {name: waist for name, waist in presets().items() if name.startswith("thesis")} == expected
    assert list(presets()) == [*THESIS, "szt-30", "blackbox-50"]


def test_the_tanh_networks_have_presets():
    szt, blackbox = presets()["szt-30"], presets()["blackbox-50"]
    for layer in ("hidden1", "hidden5"):
        assert szt.recipe(layer) == parse_recipe("identity | uniform(bins=30, lo=-1, hi=1)")
        assert blackbox.recipe(layer) == parse_recipe("identity | uniform(bins=49, lo=-1, hi=1)")
    assert szt.recipe("out") == parse_recipe("softmax | uniform(bins=30, lo=0, hi=1)")
    assert blackbox.recipe("out") == blackbox.recipe("hidden1")


def test_the_presets_file_is_one_that_can_be_given_back(tmp_path):
    (tmp_path / "mine.toml").write_text(preset_text(), encoding="utf-8")
    assert load_waists(tmp_path / "mine.toml") == presets()


def test_an_inline_text_is_a_waist():
    waist = parse_waist(
        " mine : x = maxpool(4, 4) | threshold(0.5) ;relu:1=identity|quantile(bins=2, lo=0);;*=argmax | exact; "
    )
    assert waist.name == "mine"
    assert waist.x == parse_recipe("maxpool(4, 4) | threshold(0.5)")
    assert waist.recipe("relu:1") == parse_recipe("identity | quantile(bins=2, lo=0)")
    assert waist.layers == ("relu:1",)


def test_the_star_is_every_layer_that_is_not_named():
    waist = parse_waist("mine: conv1=identity | exact; *=argmax | exact")
    assert waist.recipe("conv1") == parse_recipe("identity | exact")
    assert waist.recipe("anything") == parse_recipe("argmax | exact")
    assert parse_waist("mine: conv1=identity | exact").recipe("conv2") is None


def test_without_a_recipe_every_distinct_input_is_its_own_pattern():
    assert parse_waist("mine: *=softmax | exact").x == EXACT == parse_recipe("identity | exact")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mine", "'mine' is no waist; write NAME: layer=reduction | discretization"),
        (": *=identity | exact", "a waist needs a name"),
        ("mine:", "waist 'mine' narrows no layer; give at least one, or * for all"),
        ("mine: ; ;", "waist 'mine' narrows no layer"),
        ("mine: x=identity | exact", "waist 'mine' narrows no layer"),
        ("mine: identity | quantile(bins=2)", "waist 'mine': 'identity | quantile(bins=2)' names no layer"),
        ("mine: conv1", "waist 'mine': 'conv1' names no layer; write layer=recipe"),
        ("mine: =identity | exact", "waist 'mine': '=identity | exact' names no layer"),
        ("mine: a=identity | exact; a=softmax | exact", "waist 'mine' names layer 'a' twice"),
        ("mine: a=identity | exact; b=idntity | exact", "waist 'mine', layer 'b': unknown reduction 'idntity'"),
        ("mine: a=", "waist 'mine', layer 'a': a recipe is reduction | discretization"),
    ],
)
def test_a_wrong_inline_text_is_refused(text, said):
    with pytest.raises(WaistError, match=re.escape(said)):
        parse_waist(text)


def test_a_file_holds_waists(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[coarse]\nx = "maxpool(4, 4) | threshold(0.5)"\n"encoder.0" = "channelmean | equalmass(bins=8)"\n'
        '["fine: ü"]\n"*" = "identity | exact"\n',
        encoding="utf-8",
    )
    waists = load_waists(path)
    assert list(waists) == ["coarse", "fine: ü"]
    assert waists["coarse"].layers == ("encoder.0",)
    assert waists["fine: ü"].recipe("out") == parse_recipe("identity | exact")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[mine", "is no TOML file: Expected ']'"),
        (b'[mine]\nx = "identity | exact"\nx = "identity | exact"', "is no TOML file: Cannot overwrite a value"),
        ('[mine]\n"*" = "identität | exact"'.encode("latin-1"), "is no TOML file: 'utf-8' codec can't decode"),
        (b"", 'holds no waist; write ["name"] and below it layer = "recipe"'),
        (b'x = "identity | exact"', "'x' is no table of texts"),
        (b"[mine]\nx = 3", "'mine' is no table of texts"),
        (b'[mine.deep]\nx = "identity | exact"', "'mine' is no table of texts"),
        (b"[mine]", "waist 'mine' narrows no layer"),
        (b'[""]\nout = "identity | exact"', "a waist needs a name"),
        (b'[mine]\n"" = "identity | exact"', "waist 'mine': 'identity | exact' names no layer"),
        (b'[mine]\nout = "identity | exat"', "waist 'mine', layer 'out': unknown discretization 'exat'"),
    ],
)
def test_a_wrong_file_is_refused_with_its_path(content, said, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(WaistError, match=re.escape(said)) as found:
        load_waists(path)
    assert str(path) in str(found.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read waists from .*none.toml: No such file or directory; give"):
        load_waists(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="Is a directory"):
        load_waists(tmp_path)


def test_waists_are_found_by_name_text_and_as_they_are():
    mine = parse_waist("mine: *=identity | exact")
    found = find_waists(
        ["thesis-6.2", "other: *=softmax | exact", mine, "mine", "thesis-6.2"], presets() | {"mine": mine}
    )
    assert [waist.name for waist in found] == ["thesis-6.2", "other", "mine"]


def test_an_unknown_waist_is_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"there is no waist 'thesis-6\.4'; did you mean 'thesis-6\.\d'\?$"):
        find_waists(["thesis-6.4"], presets())


def test_one_name_cannot_mean_two_waists():
    with pytest.raises(UsageError, match="two waists are called 'mine'"):
        find_waists(["mine: *=identity | exact", "mine: *=softmax | exact"], {})
