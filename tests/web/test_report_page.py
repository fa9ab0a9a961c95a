"""The page of `ibstore report` in a real browser, used as a reader does: with the pointer, with the keyboard."""

import csv
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import Browser, Page, expect

import ibstore
from tests.web.conftest import HOSTILE, WAISTS, opened

pytestmark = pytest.mark.xdist_group("web")  # one browser

WIDTHS = (1280, 420)


def now(page: Page) -> dict[str, list[str]]:
    """The table of the chosen epoch: cells by layer."""
    rows = page.locator("#now tbody tr").all()
    cells = [row.locator("td").all_text_contents() for row in rows]
    return {own[0]: [cell.removesuffix(" ▲") for cell in own[1:]] for own in cells}


def expected(report: Path, epoch: int, waist: int = 0, run: str = "b") -> dict[str, list[str]]:
    """The same from the analysis."""
    table = ibstore.open(report.parent / "lab.zarr").analyze(WAISTS[waist], epochs=[epoch]).filter(run=run)
    rows = table.select("layer", "h_t", "i_xt", "i_ty").rows()
    return {layer: [f"{value:.3f}" for value in values] for layer, *values in rows}


def marks(page: Page, section: str) -> list[str]:
    """What is drawn of a section, as the browser has it."""
    return page.locator(f".chart[data-section={section}] svg.marks").evaluate_all(
        "all => all.map(svg => svg.innerHTML)"
    )


def choose_run(page: Page, run: str = "b") -> None:
    page.locator("#run").select_option(run)


def test_names_from_the_store_are_text(browser: Browser, report: Path) -> None:
    """Nothing runs, nothing is looked for, and each stands there as it is (`opened` watches)."""
    with opened(browser, report) as page:
        assert page.title() == "</title><script>alert('title')</script>"
        expect(page.locator("h1")).to_have_text("</title><script>alert('title')</script>")
        expect(page.get_by_role("checkbox", name=HOSTILE)).to_be_checked()
        expect(page.locator("#trust h4").nth(1)).to_contain_text(HOSTILE)
        expect(page.locator("#redo pre")).to_have_text("ibstore analyze <lab.zarr>")
        runs = page.locator("#trained table.data tbody td:first-child").all_text_contents()
        assert runs == ["a</title><script>alert('run')</script>", "b"]


def test_metrics_of_whatever_name_are_drawn(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        drawn = marks(page, "training")
        assert len(drawn) == 4
        for name in ("a.b['c']", 'q"uote', "<b>x</b>"):
            expect(page.locator(".chart[data-section=training]", has_text=name)).to_have_count(1)


def test_the_mean_of_runs_comes_first(browser: Browser, report: Path) -> None:
    table = ibstore.open(report.parent / "lab.zarr").analyze(WAISTS[0], epochs=[3]).filter(layer="first")
    with opened(browser, report) as page:
        expect(page.locator("#run")).to_have_value("mean of the runs")
        assert now(page)["first"][1] == f"{table['i_xt'].mean():.3f}"


def test_the_slider_chooses_the_epoch(browser: Browser, report: Path) -> None:
    """By the keyboard; the table says what the analysis says, and the charts move."""
    with opened(browser, report) as page:
        choose_run(page)
        slider = page.locator("#epoch")
        expect(page.locator("#epoch-now")).to_have_text("3")
        assert now(page) == expected(report, 3)
        drawn = marks(page, "plane"), marks(page, "curves")
        slider.focus()
        slider.press("ArrowLeft")
        expect(page.locator("#epoch-now")).to_have_text("2")
        expect(slider).to_have_attribute("aria-valuetext", "epoch 2")
        assert now(page) == expected(report, 2)
        moved = marks(page, "plane"), marks(page, "curves")
        assert all(
            before != after for which in (0, 1) for before, after in zip(drawn[which], moved[which], strict=True)
        )
        slider.press("Home")
        assert now(page) == expected(report, 0)


def test_play_goes_to_the_last_epoch(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        page.locator("#play").press("Enter")
        expect(page.locator("#play")).to_have_text("Pause")
        expect(page.locator("#epoch-now")).to_have_text("0")
        expect(page.locator("#epoch-now")).to_have_text("3")
        expect(page.locator("#play")).to_have_text("Play")


def test_play_can_be_stopped(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        page.locator("#play").press("Enter")
        page.locator("#play").press("Enter")
        expect(page.locator("#play")).to_have_text("Play")
        expect(page.locator("#epoch-now")).to_have_text("0")


def test_the_waist_is_chosen_by_the_keyboard(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        choose_run(page)
        waist = page.locator("#waist")
        expect(waist).to_have_value("coarse")
        waist.press("ArrowDown")
        expect(waist).to_have_value("fine")
        assert now(page) == expected(report, 3, waist=1)


def test_layers_can_be_left_out(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        both = [drawn.count("<path") for drawn in marks(page, "curves")]
        page.get_by_role("checkbox", name=HOSTILE).press("Space")
        assert list(now(page)) == ["first"]
        assert all(
            now < before
            for now, before in zip([own.count("<path") for own in marks(page, "curves")], both, strict=True)
        )


def test_the_pointer_shows_values_and_dims_the_others(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        choose_run(page)
        chart = page.locator(".chart[data-section=curves]").first
        point = chart.locator(".mark-symbol path").first
        point.scroll_into_view_if_needed()
        pale = chart.locator('.mark-symbol path[opacity="0.15"]')
        expect(pale).to_have_count(0)
        point.hover(force=True)
        shown = page.locator("#vg-tooltip-element")
        expect(shown).to_be_visible()
        expect(shown).to_contain_text("epoch")
        expect(shown.locator("script")).to_have_count(0)
        expect(pale).to_have_count(4)
        page.mouse.move(0, 0)
        expect(pale).to_have_count(0)


def test_a_click_on_a_point_chooses_its_epoch(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        choose_run(page)
        page.locator(".chart[data-section=curves]").first.locator(".mark-symbol path").first.click(force=True)
        expect(page.locator("#epoch-now")).to_have_text("0")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_as_light_or_dark_as_the_system(browser: Browser, report: Path, scheme: str) -> None:
    ground = {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 27)"}
    other = {"light": "dark", "dark": "light"}[scheme]
    with opened(browser, report, color_scheme=scheme) as page:
        body, chart = page.locator("body"), page.locator(".chart svg.marks").first
        expect(body).to_have_css("background-color", ground[scheme])
        before = chart.inner_html()
        page.locator("#theme").press("Enter")
        expect(body).to_have_css("background-color", ground[other])
        expect(page.locator("#theme")).to_have_text(scheme.capitalize())
        page.wait_for_function("before => document.querySelector('.chart svg.marks').innerHTML !== before", arg=before)


def test_it_goes_with_the_system(browser: Browser, report: Path) -> None:
    with opened(browser, report, color_scheme="light") as page:
        page.emulate_media(color_scheme="dark")
        expect(page.locator("body")).to_have_css("background-color", "rgb(21, 23, 27)")


def test_tables_sort_and_download(browser: Browser, report: Path) -> None:
    table = ibstore.open(report.parent / "lab.zarr").analyze(WAISTS)
    with opened(browser, report) as page:
        section = page.locator("#tables details").first
        head = section.get_by_role("columnheader", name="i_ty: activate to sort", exact=False).first
        head.locator("[role=button]").press("Enter")
        lowest = section.locator("tbody tr").first.locator("td").nth(11)
        expect(lowest).to_have_text(str(float(f"{table['i_ty'].min():.5g}")))
        with page.expect_download() as download:
            section.get_by_role("button", name="CSV").press("Enter")
        assert download.value.suggested_filename == "plane.csv"
        lines = list(csv.DictReader(Path(download.value.path()).read_text(encoding="utf-8-sig").splitlines()))
    of_b = [float(line["i_ty"]) for line in lines if line["run"] == "b"]
    assert {line["layer"] for line in lines} == {"first", HOSTILE}
    assert sorted(of_b) == pytest.approx(sorted(table.filter(pl.col("run") == "b")["i_ty"]), rel=1e-6)


def test_everything_is_reached_by_the_keyboard(browser: Browser, report: Path) -> None:
    wanted = {"theme", "waist", "run", "layers", "play", "epoch"}
    with opened(browser, report) as page:
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        reached = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.name || document.activeElement.id"))
        assert wanted <= reached


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(browser: Browser, report: Path, width: int) -> None:
    with opened(browser, report, viewport={"width": width, "height": 800}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_javascript_the_words_are_there(browser: Browser, report: Path) -> None:
    with opened(browser, report, java_script_enabled=False) as page:
        expect(page.locator("#trust h4").first).to_be_visible()
        expect(page.locator("#redo pre")).to_be_visible()


def test_a_real_run_shows_its_training(browser: Browser, trained: Path) -> None:
    with opened(browser, trained) as page:
        expect(page.locator(".chart[data-section=training] svg.marks")).to_have_count(2)
        expect(page.locator(".chart[data-section=dynamics] svg.marks")).to_have_count(4)
        assert all("<path" in drawn for drawn in marks(page, "training"))
        expect(page.locator("#run")).to_be_hidden()  # there is one
        page.locator("details summary", has_text="The network of").click()
        expect(page.locator("#trained pre")).to_contain_text("Conv2d(1, 16")
