"""A real Chromium, and pages that `ibstore report` wrote for it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

import ibstore
from tests.analyze.stores import make_store

QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
"""As root, and so that the browser looks for nothing on a network."""

HOSTILE = "<script>alert('layer')</script>" + "x" * 100
WAISTS = ("coarse: *=identity | uniform(bins=2, lo=0, hi=1)", "fine: *=identity | uniform(bins=4, lo=0, hi=1)")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        reason = "there is no Chromium here; apt-get install chromium"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        yield chromium
        chromium.close()


def activations(seed: int, epochs: int = 4, samples: int = 60) -> dict[str, np.ndarray]:
    """Layers of a network that learns: later epochs cling to the label."""
    random = np.random.default_rng(seed)
    labels = np.arange(samples) % 3 / 3
    clinging = np.linspace(0, 0.9, epochs)[:, None, None]
    return {
        name: clinging * labels[None, :, None] + (1 - clinging) * random.random((epochs, samples, units))
        for name, units in (("first", 4), (HOSTILE, 2))
    }


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of two layers and four epochs under two waists; whatever can be named is named to do harm."""
    folder = tmp_path_factory.mktemp("report")
    x, y = np.arange(60.0)[:, None], np.arange(60) % 3
    metrics = ("loss", "a.b['c']", 'q"uote', "<b>x</b>")
    scores = {epoch: {"train": dict.fromkeys(metrics, 1.0 / (1 + epoch))} for epoch in range(4)}
    scores[3]["train"]["loss"] = float("nan")
    for run in ("a</title><script>alert('run')</script>", "b"):
        make_store(folder / "lab.zarr", x, y, layers=activations(len(run)), run=run, metrics=scores)
    return written(folder, "</title><script>alert('title')</script>")


@pytest.fixture(scope="session")
def trained(captured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One real run, with dynamics."""
    folder = tmp_path_factory.mktemp("trained")
    study = ibstore.Study(captured, folder / "results")
    (folder / "report.html").write_text(
        study.ask("thesis-6.2").report("trained", commands=["ibstore capture mnist-cnn"])
    )
    return folder / "report.html"


def written(folder: Path, title: str) -> Path:
    study = ibstore.open(folder / "lab.zarr")
    page = study.ask(WAISTS).report(title, commands=["ibstore analyze <lab.zarr>"])
    (folder / "report.html").write_text(page)
    return folder / "report.html"


@contextmanager
def opened(browser: Browser, file: Path, **context: object) -> Iterator[Page]:
    """The page, drawn; whatever it complains of, asks or looks for elsewhere is a failure."""
    with browser.new_context(**context) as own:  # type: ignore[arg-type]
        page, wrong = own.new_page(), []
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.on(
            "request", lambda request: request.url.startswith(("file:", "blob:", "data:")) or wrong.append(request.url)
        )
        page.goto(file.as_uri())
        if context.get("java_script_enabled", True):
            page.locator("html[data-ready=true]").wait_for()
        yield page
        assert wrong == []
