import sys

import pytest
from torch import nn

from ibstore.capture.loading import load_network, load_object
from ibstore.errors import UnknownNameError, UsageError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, empty; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(path, *lines):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("\n".join(lines))
    return path


def test_objects_of_modules_and_files(folder):
    write(folder / "own_package" / "nets.py", "class Nets:", "    size = 3")
    assert load_object("own_package.nets:Nets.size") == 3
    assert load_object("own_package/nets.py:Nets.size") == 3
    assert load_object(f"{folder}/own_package/nets.py:Nets.size") == 3


def test_a_file_may_have_neighbours_and_any_name(folder):
    write(
        folder / "deep" / "torch.py",
        "from own_neighbour import SIZE",
        "",
        "def late():",
        "    import own_late as m",
        "    return m.NAME",
    )
    write(folder / "deep" / "own_neighbour.py", "SIZE = 5")
    write(folder / "deep" / "own_late.py", "NAME = 'late'")
    assert load_object("deep/torch.py:SIZE") == 5
    assert load_object("deep/torch.py:late")() == "late"
    assert sys.modules["torch"].nn is nn


def test_a_file_is_run_once(folder):
    write(folder / "once.py", "thing = object()")
    assert load_object("once.py:thing") is load_object("./once.py:thing")


def test_files_of_one_name_are_kept_apart(folder):
    for name in ("a", "b"):
        write(folder / name / "recipe.py", f"name = {name!r}")
    assert [load_object(f"{name}/recipe.py:name") for name in ("a", "b", "a")] == ["a", "b", "a"]


def test_a_file_that_failed_can_be_mended(folder):
    path = write(folder / "mended.py", "1 / 0")
    with pytest.raises(UsageError, match=r"mended.py cannot be imported \(ZeroDivisionError: division by zero\)"):
        load_object("mended.py:net")
    write(path, "net = 'mended network'")
    assert load_object("mended.py:net") == "mended network"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("models", UsageError, "'models' names no object; write it as package.module:name or folder/file.py:name"),
        (":net", UsageError, "names no object"),
        ("models:", UsageError, "names no object"),
        ("models:a b", UsageError, "names no object"),
        ("mod/els:net", UsageError, "'mod/els' is no module's name"),
        ("no_such:net", UnknownNameError, "there is no module 'no_such' to import 'no_such' from"),
        ("json.nothing:net", UnknownNameError, "there is no module 'json.nothing'"),
        ("nothing.py:net", UnknownNameError, "there is no file nothing.py"),
        ("user.py:nte", UnknownNameError, "user.py has no 'nte'; it has Net, net"),
        ("user:Net.made", UnknownNameError, "user has no 'Net.made'; name one that it has"),
        ("valued.py:net", UnknownNameError, "valued.py has no 'net'; it has half, now"),
        ("empty.py:net", UnknownNameError, "empty.py has no 'net'; name one that it has"),
        ("wanting:net", UsageError, "wanting cannot be imported (ModuleNotFoundError: No module named 'absent')"),
        ("leaving.py:net", UsageError, "leaving.py cannot be imported (SystemExit: 3)"),
        ("leaving:net", UsageError, "leaving cannot be imported (SystemExit: 3)"),
        ("broken.py:net", UsageError, "broken.py cannot be imported (SyntaxError"),
    ],
)
def test_what_cannot_be_loaded_is_refused(folder, text, kind, message):
    write(folder / "user.py", "from math import sqrt", "class Net:", "    pass", "def net():", "    pass")
    write(folder / "empty.py")
    write(
        folder / "valued.py",
        "from fractions import Fraction",
        "import datetime",
        "half, now, _own = Fraction(1, 2), datetime.date(2020, 1, 1), Fraction(1)",
    )
    write(folder / "wanting.py", "import absent")
    write(folder / "leaving.py", "raise SystemExit(3)")
    write(folder / "broken.py", "def")
    with pytest.raises(UsageError) as error:
        load_object(text)
    assert type(error.value) is kind
    assert message in str(error.value)


def test_networks(folder):
    write(folder / "nets.py", "from torch import nn", "def net():", "    return nn.Linear(2, 3)", "", "Net = nn.ReLU")
    assert load_network("nets.py:net").out_features == 3
    assert isinstance(load_network("nets:Net"), nn.ReLU)
    assert isinstance(load_network(nn.Tanh), nn.Tanh)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("math:pi", "math:pi is of type float; give a function that returns a torch.nn.Module"),
        (3, "3 is of type int; give a function"),
        (nn.ReLU(), "ReLU() is a network; give what makes one"),
        (nn.Linear, "Linear() fails (TypeError: "),
        ("builtins:dict", "builtins:dict() returns dict; let it return a torch.nn.Module"),
    ],
)
def test_what_makes_no_network_is_refused(factory, message):
    with pytest.raises(UsageError) as error:
        load_network(factory)
    assert message in str(error.value)
