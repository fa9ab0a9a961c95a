"""The lines of the design that would be expensive to cross: who imports whom, and what starts without what."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

import ibstore
from tests.store import stores

PACKAGE = Path(ibstore.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
MODULE_LINES = 400
BODY_LINES = 60

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef

# ---- the import graph


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph(
        "ibstore", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )


def part(module):
    """What of the design a module belongs to: `ibstore.store.places.disk` to `ibstore.store`."""
    return ".".join(module.split(".")[:2])


def importers(graph, package):
    """Modules of ours that import ``package`` or anything below it, directly."""
    return {
        importer
        for module in graph.modules
        if module == package or module.startswith(f"{package}.")
        for importer in graph.find_modules_that_directly_import(module)
        if importer != package and not importer.startswith(f"{package}.")
    }


def test_the_graph_sees_the_package(graph):
    assert {
        "ibstore.store.writer",
        "ibstore.capture.recorder",
        "ibstore.analyze.study",
        "ibstore.cli.ls",
    } <= graph.modules
    assert importers(graph, "ibstore.store.places") >= {"ibstore.store.reader", "ibstore.store.writer"}


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("ibstore.store", "ibstore.capture"),
        ("ibstore.store", "ibstore.analyze"),
        ("ibstore.store", "ibstore.cli"),
        ("ibstore.capture", "ibstore.analyze"),
        ("ibstore.capture", "ibstore.cli"),
        ("ibstore.analyze", "ibstore.capture"),
        ("ibstore.analyze", "ibstore.cli"),
    ],
)
def test_the_stages_go_one_way(graph, importer, imported):
    # As packages, and not only directly: a chain through a third module counts too.
    assert graph.find_shortest_chains(importer, imported, as_packages=True) == set()


def test_nothing_imports_the_command_line(graph):
    assert importers(graph, "ibstore.cli") == set()


@pytest.mark.parametrize(
    ("package", "places"),
    [
        ("torch", ("ibstore.capture", "ibstore.devices", "ibstore.analyze.device")),
        ("torchvision", ("ibstore.capture",)),
        ("zarr", ("ibstore.store",)),
        ("numcodecs", ("ibstore.store.format.shards",)),
        ("google_crc32c", ("ibstore.store.format.shards",)),
        ("obstore", ("ibstore.store.places.bucket",)),
        ("duckdb", ("ibstore.analyze.sql",)),
        ("numba", ("ibstore.analyze.kernels", "ibstore.analyze.estimate.kernels")),
        ("psutil", ("ibstore.analyze.plan", "ibstore.capture.outbox")),
        ("matplotlib", ("ibstore.analyze.plots",)),
        ("altair", ("ibstore.analyze.report",)),
        ("jinja2", ("ibstore.analyze.report",)),
        ("itables", ("ibstore.analyze.report",)),
        ("vl_convert", ("ibstore.analyze.report",)),
        ("distributed", ("ibstore.analyze.cluster",)),
        ("typer", ("ibstore.cli",)),
        ("rich", ("ibstore.cli",)),
    ],
)
def test_a_heavy_package_has_its_place(graph, package, places):
    homes = importers(graph, package)
    assert all(f"{importer}.".startswith(tuple(f"{place}." for place in places)) for importer in homes), homes
    assert homes or package == "torchvision"  # imported by name


def test_zarr_is_imported_by_one_module_of_the_store(graph):
    assert importers(graph, "zarr") == {"ibstore.store.format.arrays"}


def test_errors_and_events_stand_alone(graph):
    for module in ("ibstore.errors", "ibstore.events"):
        assert not [other for other in graph.find_modules_directly_imported_by(module) if other.startswith("ibstore")]


# ---- what starts without what

HEAVY = [
    "pydantic",
    "torch",
    "torchvision",
    "zarr",
    "duckdb",
    "polars",
    "pyarrow",
    "numpy",
    "matplotlib",
    "numba",
    "scipy",
    "pandas",
]

COMMANDS = """
import json, sys
from ibstore.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["ibstore", *arguments]
    try:
        main()
    except SystemExit as leaving:
        assert not leaving.code, leaving.code
    print("\\n" + json.dumps(sorted(sys.modules)))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return stores.write_run(tmp_path_factory.mktemp("architecture") / "lab.zarr", stores.layers())


def imported_by(*commands):
    """Heavy packages that one process has imported after each of the commands, and what it has said."""
    arguments = json.dumps([[str(argument) for argument in command] for command in commands])
    done = subprocess.run([sys.executable, "-c", COMMANDS, arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    modules = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')]
    assert len(modules) == len(commands)
    return [{package for package in HEAVY if package in found} for found in modules], done.stdout


def test_help_imports_nothing_heavy():
    commands = ["capture", "analyze", "measure", "sweep", "doctor", "query", "plot", "ls", "info", "waists"]
    commands += ["verify", "repair", "cp", "merge", "rm", "import", "export"]
    heavy, said = imported_by(["--help"], ["--version"], *([command, "--help"] for command in commands))
    assert heavy == [set()] * (2 + len(commands))
    assert all(f"Usage: ibstore {command}" in said for command in commands)


def test_a_listing_imports_nothing_heavy(store):
    (ls, info), said = imported_by(["ls", store], ["info", store])
    assert ls == set()
    assert info <= {"numpy"}
    assert said.count("run0") >= 2


def test_analysis_and_queries_start_without_torch(store, tmp_path):
    results = ["--results", tmp_path / "results"]
    (query, analyze), said = imported_by(
        ["query", store, "SELECT run, epoch FROM epochs", *results],
        ["analyze", store, "--waist", "own: *=identity | quantile(bins=2)", *results],
    )
    assert {"duckdb", "zarr"} <= query | analyze
    assert (query | analyze).isdisjoint({"torch", "torchvision", "matplotlib", "pandas"})
    assert "run0" in said
    assert "conv" in said


def test_what_is_asked_again_is_answered_without_what_computes(store, tmp_path):
    ask = ["analyze", store, "--waist", "own: *=identity | quantile(bins=2)", "--results", tmp_path / "results", "-q"]
    imported_by(ask)
    (again,), _ = imported_by(ask)
    assert again <= {"polars", "numpy"}


def test_the_package_itself_imports_nothing_heavy():
    code = "import sys, ibstore; dir(ibstore); print([name for name in sys.argv[1:] if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ---- sizes and words


def name(path):
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_can_be_read_in_one_sitting(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MODULE_LINES
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= BODY_LINES, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_what_is_public_says_what_it_is(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    owners = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_"))]
    public = [
        node
        for owner in owners
        for node in owner.body
        if isinstance(node, FUNCTIONS | ast.ClassDef) and not node.name.startswith("_")
    ]
    for node in public:
        assert ast.get_docstring(node), node.name


def test_public_names_are_what_they_are_called():
    assert set(dir(ibstore)) == set(ibstore.__all__)
    for public in ibstore.__all__:
        assert getattr(ibstore, public) is not None
    with pytest.raises(AttributeError, match="module 'ibstore' has no attribute 'recorder'"):
        _ = ibstore.recorder
