"""Pages as a reader has them, opened in a real Chromium without a network: summary.html, and the documentation."""

import contextlib
import functools
import http.server
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stand_in
from docs_pages import REPOSITORY
from playwright.sync_api import Browser, Page, sync_playwright
from workspace import with_stand_in

REQUIRED = "ROLLOUT_BENCH_TESTS_NEED_CHROMIUM"
"""Set where tests must fail, not be skipped, if there is no Chromium: .ci/run sets it."""

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

PATIENCE_MS = 60_000
"""How long a busy machine may take until something is rendered."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium as it is installed, without a window."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        end = pytest.fail if REQUIRED in os.environ else pytest.skip
        end("no Chromium here; to run them: apt-get install chromium, then make test")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def sent(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the page of three launches of two quants to a folder of its own, as somebody has it to whom it was sent."""
    space = with_stand_in(tmp_path_factory.mktemp("page"), **{**stand_in.IN_BLOCKS, "launches": 3})
    space.ran()
    return Path(shutil.copy(space.path / "results" / "summary.html", tmp_path_factory.mktemp("sent")))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the documentation as `make docs` builds it; return its address."""
    folder = tmp_path_factory.mktemp("site")
    command = ["mkdocs", "build", "--quiet", "-f", REPOSITORY / "mkdocs.yml", "-d", folder]
    subprocess.run(command, cwd=folder, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, check=True)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_site_sorts_its_tables_and_can_be_dark_and_searched(browser: Browser, site: str):
    with opened(browser, f"{site}/reference/speeds.html") as (page, errors, requests):
        column = page.locator("article th").all_inner_texts().index("tok/s per device") + 1
        speeds = []
        for _ in range(2):
            page.locator(f"article th:nth-child({column})").click()
            speeds.append([float(text) for text in page.locator(f"article td:nth-child({column})").all_inner_texts()])
        assert len(speeds[0]) > 9
        assert sorted(map(tuple, speeds)) == sorted([tuple(sorted(speeds[0])), tuple(sorted(speeds[0], reverse=True))])
        assert brightness(page, "backgroundColor") > 200
        page.locator("label[for=__palette_1]").first.click()
        page.wait_for_function("document.body.dataset.mdColorScheme === 'slate'")
        assert brightness(page, "backgroundColor") < 60
        found = page.request.get(f"{site}/search/search_index.json").json()["docs"]
        assert {"lora.html", "reference/speeds.html"} <= {one["location"].partition("#")[0] for one in found}
        page.get_by_role("link", name="What does a LoRA adapter cost").first.click()
        page.wait_for_url("**/lora.html")
        beyond = [asked for asked in requests if not asked.startswith(site)]
        assert {asked.split("/")[2] for asked in beyond} <= {"api.github.com"}, "the theme asks for stars"
        assert [error for error in errors if "net::ERR_" not in error] == []


@contextlib.contextmanager
def opened(browser: Browser, place: Path | str, **more: Any) -> Iterator[tuple[Page, list[str], list[str]]]:
    """Open a file or an address on a screen of 1280 x 900, or as `more` says; yield page, errors and requests."""
    errors, requests = list[str](), list[str]()
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | more)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith(("data:", "blob:")) else requests.append(asked.url))
    try:
        page.goto(place if isinstance(place, str) else place.as_uri(), wait_until="load", timeout=PATIENCE_MS)
        yield page, errors, requests
    finally:
        context.close()


def brightness(page: Page, property_: str) -> float:
    """Return how bright a colour of the page's body is, from 0 to 255."""
    colour = page.evaluate(f"getComputedStyle(document.body).{property_}")
    channels = [float(number) for number in re.findall(r"[\d.]+", colour)]
    assert len(channels) == 3, f"{colour} lets something through"
    return sum(channels) / 3


def test_the_conclusion_is_the_first_thing_that_is_read(browser: Browser, sent: Path):
    with opened(browser, sent) as (page, *_):
        assert (page.locator("h2").all_inner_texts()[0], page.locator("figure").count()) == ("Conclusion", 3)
        for image in page.locator("figure img").all():
            assert image.evaluate("image => image.complete && image.naturalWidth > 300")
        conclusion = page.locator("section#conclusion")
        page.set_viewport_size({"width": 400, "height": 900})
        headline = conclusion.locator("strong").bounding_box()
        assert headline["y"] + headline["height"] < 900, "on a telephone one has to scroll to read it"
        page.set_viewport_size({"width": 1280, "height": 900})
        box = conclusion.bounding_box()
        assert box["y"] + box["height"] < 900, "one has to scroll to read it"
        assert len(conclusion.locator("li").all_inner_texts()) in range(6)
        assert "w8a8" in conclusion.inner_text()
        for below in (page.locator("figure").first, page.locator("table").first):
            assert box["y"] + box["height"] <= below.bounding_box()["y"]


def test_the_explorer_chooses_sorts_hides_and_links(browser: Browser, sent: Path):
    with opened(browser, sent) as (page, errors, _):
        page.locator("#explorer summary").click()
        rows, ratios = page.locator("#explorer tbody tr"), page.locator("#explorer tbody td:nth-child(3)")
        assert rows.count() == 2
        assert "x" in " ".join(ratios.all_inner_texts())
        assert page.locator("#explorer circle").count() == 6
        for number in page.locator("#explorer select[name=number] option").evaluate_all("all => all.map(o => o.value)"):
            page.locator("#explorer select[name=number]").select_option(number)
            assert rows.count() == 2
        page.locator("#explorer select[name=number]").select_option("startup_s")
        page.locator("#explorer th button").first.press("Enter")
        names = page.locator("#explorer tbody td:first-child").all_inner_texts()
        assert names == sorted(names)
        rows.first.locator("button").click()
        assert page.locator("#explorer tbody td:first-child").all_inner_texts() == names[1:]
        link = page.url
        with page.expect_download() as saved:
            page.locator("#explorer button[name=save]").click()
        assert "<svg" in saved.value.path().read_text()
        assert errors == []
        page.goto("about:blank")
        page.goto(link)
        assert page.locator("#explorer tbody td:first-child").all_inner_texts() == names[1:]
        assert page.locator("#explorer select[name=number]").input_value() == "startup_s"


def test_on_a_telephone_all_columns_are_in_sight(browser: Browser, sent: Path):
    with opened(browser, sent) as (page, *_):
        page.set_viewport_size({"width": 400, "height": 900})
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")
        # a path that a flag names may be longer than the page is wide
        page.evaluate("document.querySelector('section li').append('qwen3_bf16_demo'.repeat(19))")
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        assert page.locator("table").count() == page.locator(".wide > table").count() > 0
        inside = "boxes => boxes.every(box => box.scrollWidth <= box.clientWidth)"
        assert page.locator("#tables .wide").evaluate_all(inside)
        assert page.locator("#tables td >> visible=true").count() == page.locator("#tables td").count() > 0


def test_a_finger_opens_what_columns_and_flags_mean(browser: Browser, sent: Path):
    telephone = {"viewport": {"width": 400, "height": 900}, "has_touch": True, "is_mobile": True}
    with opened(browser, sent, **telephone) as (page, *_):
        page.locator("nav a", has_text="Notes").tap()
        assert page.url.endswith("#notes")
        heads = page.locator("#tables th").evaluate_all("heads => heads.map((head) => head.title)")
        defined = next(place for place, title in enumerate(heads) if title)
        page.locator("#tables tbody tr").first.locator("td").nth(defined).tap()
        assert page.locator(".note").inner_text() == heads[defined]
        page.locator("h1").tap()
        assert page.locator(".note").is_hidden()


def test_nothing_fails_and_no_network_is_asked(browser: Browser, sent: Path):
    with opened(browser, sent) as (page, errors, requests):
        page.mouse.wheel(0, 100_000)
        page.emulate_media(color_scheme="dark")
        page.wait_for_load_state("networkidle")
        assert (errors, requests) == ([], [sent.as_uri()])


def test_dark_and_light_are_different_and_both_can_be_read(browser: Browser, sent: Path):
    with opened(browser, sent) as (page, *_):
        pages = {}
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            pages[scheme] = brightness(page, "backgroundColor")
            assert abs(pages[scheme] - brightness(page, "color")) > 100
        assert pages["dark"] < 64 < 192 < pages["light"]
