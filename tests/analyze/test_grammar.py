import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibstore.analyze.grammar import SCOPES, SPANS, Call, Recipe, parse_recipe
from ibstore.errors import WaistError

numbers = st.floats(-1e100, 1e100)
sizes = st.integers(1, 99)
levels = st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(lambda pair: pair[0] < pair[1])


def call(name, *arguments):
    return st.builds(lambda values: f"{name}({', '.join(values)})", st.tuples(*arguments))


def given_as(name, values):
    """An argument, by name or by position."""
    return values.flatmap(lambda value: st.sampled_from([f"{value}", f"{name}={value}"]))


def named(name, values):
    return values.map(lambda value: f"{name}={value}")


reductions = st.one_of(
    st.sampled_from(["identity", "identity()", "softmax", "argmax", "channelmean", "channelmax"]),
    call("maxpool", sizes.map(str), sizes.map(str)),
    call("avgpool", sizes.map(str), sizes.map(str), sizes.map(str)),
)
options = st.builds(
    lambda *words: [word for word in words if word],
    st.none() | st.sampled_from(SCOPES).map("scope={}".format),
    st.none() | st.sampled_from(SPANS).map("per={}".format),
)
fixed = st.one_of(
    st.sampled_from(["exact", "labels", "exact()"]),
    call("threshold", given_as("t", numbers)),
    call("width", given_as("w", st.floats(1e-100, 1e100))),
    st.builds(
        lambda bins, ends: f"uniform({bins}, lo={min(ends)}, hi={max(ends)})",
        st.integers(1, 300),
        st.tuples(numbers, numbers).filter(lambda pair: pair[0] != pair[1]),
    ),
    st.lists(numbers, min_size=1, unique=True).map(lambda edges: f"edges({', '.join(map(str, sorted(edges)))})"),
)
fitted = st.builds(
    lambda name, arguments, options: f"{name}({', '.join([*arguments, *options])})",
    st.just("quantile"),
    st.one_of(
        st.tuples(given_as("bins", st.integers(1, 300))),
        st.builds(lambda bins, pair: [bins, f"lo={pair[0]}", f"hi={pair[1]}"], sizes.map(str), levels),
    ),
    options,
) | st.builds(
    lambda name, count, options: f"{name}({', '.join([count, *options])})",
    st.sampled_from(["equalmass", "thesis_edges"]),
    st.integers(2, 300).map(str),
    options,
)
texts = st.builds("{}{}|{}{}".format, reductions, st.sampled_from(["", " ", "  "]), st.just(" "), fixed | fitted)


@given(texts)
def test_a_recipe_s_text_means_the_recipe(text):
    recipe = parse_recipe(text)
    assert parse_recipe(str(recipe)) == recipe
    assert str(parse_recipe(str(recipe))) == str(recipe)
    assert hash(parse_recipe(str(recipe))) == hash(recipe)


@given(texts, st.data())
def test_blanks_and_line_breaks_mean_nothing(text, data):
    parts = text.replace("(", " ( ").replace(",", " , ").split(" ")
    blanks = data.draw(st.lists(st.sampled_from([" ", "\n", "\t", "  \r\n "]), min_size=len(parts)))
    spread = "".join(part + blank for part, blank in zip(parts, blanks, strict=False))
    assert parse_recipe(spread) == parse_recipe(text)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("identity|quantile(2)", "identity | quantile(bins=2, lo=0.01, hi=0.99)"),
        ("identity() | quantile(hi=1, bins=2, lo=0)", "identity | quantile(bins=2, lo=0.0, hi=1.0)"),
        ("maxpool(1,4,4)|thesis_edges", "maxpool(1, 4, 4) | thesis_edges(num=2)"),
        ("softmax | threshold(+.5)", "softmax | threshold(t=0.5)"),
        ("identity | threshold(-0.0)", "identity | threshold(t=0.0)"),
        ("argmax | edges(-1, 0, 5e-1)", "argmax | edges(-1.0, 0.0, 0.5)"),
        ("identity | uniform(4, 0, 1)", "identity | uniform(bins=4, lo=0.0, hi=1.0)"),
        ("identity | equalmass(3, scope=unit, per=epoch)", "identity | equalmass(bins=3)"),
        ("identity | equalmass(3, per=run, scope=layer)", "identity | equalmass(bins=3, scope=layer, per=run)"),
        ("channelmax | exact", "channelmax | exact"),
    ],
)
def test_defaults_are_filled_in(text, whole):
    assert str(parse_recipe(text)) == whole
    assert repr(parse_recipe(text)) == f"Recipe('{whole}')"


def test_equal_recipes_are_one_dictionary_key():
    written = ["identity | quantile(2)", "identity()|quantile(bins=2,lo=1e-2,scope=unit)"]
    assert len({parse_recipe(text) for text in written}) == 1
    assert len({parse_recipe(text) for text in [*written, "identity | quantile(3)"]}) == 2


def test_a_recipe_is_immutable():
    recipe = parse_recipe("identity | exact")
    with pytest.raises(AttributeError):
        recipe.scope = "layer"
    assert recipe == Recipe(Call("identity"), Call("exact"))


def refusal(text):
    """What is said of the text, the part that is marked, and the column where the mark begins."""
    with pytest.raises(WaistError) as found:
        parse_recipe(text)
    message, source, marks = str(found.value).rsplit("\n", 2)
    assert source[:2] == marks[:2] == "  "
    start = marks.index("^")
    assert marks[start:] == "^" * (len(marks) - start)
    return message, source[start : len(marks)], start - 2


@pytest.mark.parametrize(
    ("text", "marked", "said"),
    [
        ("maxpol(4, 4) | exact", "maxpol", "unknown reduction 'maxpol'; did you mean 'maxpool'?"),
        ("pöl(4, 4) | exact", "pöl", "unknown reduction 'pöl'; there are identity, maxpool"),
        ("zzz | exact", "zzz", "unknown reduction 'zzz'; there are identity, maxpool, avgpool, softmax, argmax"),
        ("identity | quantiles(2)", "quantiles", "unknown discretization 'quantiles'; did you mean 'quantile'?"),
        ("identity | zzz", "zzz", "unknown discretization 'zzz'; there are threshold, quantile"),
        ("exact | identity", "exact", "unknown reduction 'exact'; there are"),
        ("zzz | zzz(2)", "zzz", "unknown reduction"),
        ("identity", "i", "a recipe is reduction | discretization"),
        ("identity & exact", "i", "a recipe is reduction | discretization"),
        ("identity | exact | exact", "exact", "one reduction and one discretization"),
        ("identity | (exact | exact)", "exact | exact", "expected a name"),
        ("identity | threshold", "threshold", "missing a required argument: 't'; it takes t: float"),
        ("identity | threshold()", "threshold()", "missing a required argument: 't'"),
        ("identity | threshold(1, 2)", "threshold(1, 2)", "too many positional arguments; it takes t: float"),
        ("identity(3) | exact", "identity(3)", "too many positional arguments; it takes no arguments"),
        ("identity | quantile(2.5)", "quantile(2.5)", "bins must be of type int, not 2.5"),
        ("identity | quantile(2, lo=low)", "low", "lo must be of type float, not low"),
        ("maxpool(2, 2.0) | exact", "maxpool(2, 2.0)", "window must be of type int, not 2.0"),
        ("identity | threshold(t=high)", "high", "t must be of type float, not high"),
        ("identity | quantile(2, lou=0)", "quantile(2, lou=0)", "unexpected keyword argument 'lou'; it takes bins"),
        ("maxpool(2, size=2) | exact", "maxpool(2, size=2)", "unexpected keyword argument 'size'"),
        ("identity | quantile(2, bins=3)", "quantile(2, bins=3)", "multiple values for argument 'bins'"),
        ("identity | quantile(bins=2, bins=3)", "bins=3", "bins is given twice"),
        ("identity | quantile(bins=0)", "quantile(bins=0)", "bins must be between 1 and 65,536, not 0"),
        ("identity | equalmass(-3)", "equalmass(-3)", "bins must be between 1 and 65,536, not -3"),
        ("identity | uniform(10000000000, 0, 1)", "uniform(10000000000, 0, 1)", "bins must be between 1 and 65,536"),
        ("identity | quantile(2, lo=0.9, hi=0.1)", "quantile(2, lo=0.9, hi=0.1)", "0 ≤ lo < hi ≤ 1, not 0.9 and 0.1"),
        ("identity | quantile(2, lo=0.5, hi=0.5)", "quantile(2, lo=0.5, hi=0.5)", "0 ≤ lo < hi ≤ 1"),
        ("identity | quantile(2, hi=99)", "quantile(2, hi=99)", "quantile levels"),
        ("identity | uniform(2, lo=1, hi=0)", "uniform(2, lo=1, hi=0)", "lo must be below hi, not 1.0 and 0.0"),
        ("identity | uniform(2, -1e308, 1e308)", "uniform(2, -1e308, 1e308)", "edges must be finite"),
        ("identity | thesis_edges(0)", "thesis_edges(0)", "num must be between 1 and 65,535, not 0"),
        ("identity | width(0)", "width(0)", "w must be a positive number, not 0.0"),
        ("identity | width(-1)", "width(-1)", "w must be a positive number"),
        ("identity | edges", "edges", "edges must be given in ascending order, at least one"),
        ("identity | edges(1, 1)", "edges(1, 1)", "ascending order"),
        ("identity | edges(2, 1)", "edges(2, 1)", "ascending order"),
        ("identity | threshold(1e999)", "1e999", "the number is too large"),
        ("identity | width(-1e999)", "-1e999", "the number is too large"),
        ("identity | threshold(1" + 400 * "0" + ")", "1" + 400 * "0", "the number is too large"),
        ("identity | threshold(1.7976931348623157e308)", "threshold(1.7976931348623157e308)", "must be finite"),
        ("maxpool(0, 2) | exact", "maxpool(0, 2)", "a window has 2 or 3 sizes of at least 1, not (0, 2)"),
        ("avgpool(2, -2) | exact", "avgpool(2, -2)", "a window has 2 or 3 sizes of at least 1, not (2, -2)"),
        ("maxpool | exact", "maxpool", "a window has 2 or 3 sizes"),
        ("maxpool(4) | exact", "maxpool(4)", "a window has 2 or 3 sizes"),
        ("maxpool(1, 2, 3, 4) | exact", "maxpool(1, 2, 3, 4)", "a window has 2 or 3 sizes"),
        ("identity | threshold(0.5, scope=unit)", "threshold(0.5, scope=unit)", "fixed bins and takes no scope or per"),
        ("identity | edges(1, per=run)", "edges(1, per=run)", "fixed bins and takes no scope or per"),
        ("identity | exact(scope=layer)", "exact(scope=layer)", "fixed bins and takes no scope or per"),
        ("identity | quantile(2, scope=layers)", "layers", "scope is one of unit, channel, layer"),
        ("identity | quantile(2, scope=3)", "3", "scope is one of unit, channel, layer, not 3"),
        ("identity | quantile(2, per=batch)", "batch", "per is one of epoch, run, not batch"),
        ("identity(scope=unit) | exact", "identity(scope=unit)", "unexpected keyword argument 'scope'"),
    ],
)
def test_a_refusal_marks_the_place(text, marked, said):
    message, part, column = refusal(text)
    assert said in message
    assert part == marked
    assert column == (text.rindex(marked) if text.endswith(marked) else text.index(marked))


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("", 0),
        (" \n ", 0),
        ("identity |", 10),
        ("| exact", 0),
        ("identity | exact)", 16),
        ("identity | quantile(", 19),
        ("é | quantile(", 12),
        ("identity || exact", 10),
        ("iden tity | exact", 5),
        ("identity | exact; identity | exact", 16),
        ("x = identity | exact", 2),
        ("import os", 0),
    ],
)
def test_what_cannot_be_read_is_marked_too(text, column):
    assert refusal(text)[2] == column


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("identity | __import__('os')", "'os'"),
        ("identity | __import__", "__import__"),
        ("identity | exact.__class__", "exact.__class__"),
        ("identity.real | exact", "identity.real"),
        ("identity | os.system(1)", "os.system(1)"),
        ("identity | exact()()", "exact()()"),
        ("identity | threshold(exact())", "exact()"),
        ("identity | threshold(1 + 1)", "1 + 1"),
        ("identity | threshold(1 if 1 else 2)", "1 if 1 else 2"),
        ("identity | threshold('0.5')", "'0.5'"),
        ("identity | threshold(f'{1}')", "f'{1}'"),
        ("identity | threshold(b'1')", "b'1'"),
        ("identity | threshold(True)", "True"),
        ("identity | threshold(None)", "None"),
        ("identity | threshold(1j)", "1j"),
        ("identity | threshold(...)", "..."),
        ("identity | threshold([1])", "[1]"),
        ("identity | threshold(lambda: 1)", "lambda: 1"),
        ("identity | threshold(--1)", "--1"),
        ("identity | threshold(~1)", "~1"),
        ("identity | threshold(t := 1)", "t := 1"),
        ("identity | edges(*x)", "*x"),
        ("identity | edges(x for x in y)", "(x for x in y)"),
        ("identity | threshold(**x)", "x"),
        ("identity | (lambda: 1)", "lambda: 1"),
        ("identity | 'exact'", "'exact'"),
        ("identity | f'exact'", "f'exact'"),
        ("identity | -exact", "-exact"),
        ("identity | exact[0]", "exact[0]"),
        ("not identity | exact", "n"),
        ("identity | exact if 1 else 2", "i"),
        ("identity | exact, 1", "i"),
        ("identity | await_(1)", "await_"),
    ],
)
def test_python_is_refused(text, marked):
    _, part, column = refusal(text)
    assert (part, column) == (marked, text.rindex(marked) if len(marked) > 1 else text.index(marked))


@pytest.mark.parametrize(
    "text",
    [
        "identity | __import__('os').mkdir('made')",
        "__import__('os').mkdir('made') | exact",
        "identity | threshold(__import__('os').mkdir('made'))",
        "identity | quantile(bins=open('made', 'w'))",
        "identity | edges(*[open('made', 'w')])",
        "identity | threshold(f'{open(chr(109), chr(119))}')",
        "(lambda: open('made', 'w'))() | exact",
        "identity | [open('made', 'w') for _ in (1,)]",
        "open('made', 'w') | open('made', 'w')",
    ],
)
def test_nothing_is_evaluated(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WaistError):
        parse_recipe(text)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        100_000 * "(",
        5_000 * "(" + "identity" + 5_000 * ")" + " | exact",
        "identity | threshold(" + 100_000 * "-" + "1)",
        "identity | " + 50_000 * "exact | " + "exact",
        "identity | " + 5_000 * "f(" + 5_000 * ")",
        "identity | threshold(" + 5_000 * "9" + ")",
        "identity | \x00exact",
        "\ud800 | exact",
    ],
)
def test_monstrous_texts_are_refused(text):
    with pytest.raises(WaistError):
        parse_recipe(text)


@settings(max_examples=300)
@given(st.text() | st.text("identymaxpol|(), =0.5'\"[]{}:*-~", max_size=40))
def test_any_text_is_a_recipe_or_is_refused(text):
    try:
        recipe = parse_recipe(text)
    except WaistError:
        return
    assert parse_recipe(str(recipe)) == recipe
