"""A headless Chromium for tests of pages: what they log, ask for and fail to show is an error."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
WIDTHS = (1280, 400)
"""Of a laptop and a phone, in CSS pixels."""


class Browser:
    """Opens pages, each in a context of its own."""

    def __init__(self, chromium: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._chromium = chromium
        self._loop = loop

    @contextmanager
    def page(
        self, target: Path | str, width: int = 1280, height: int = 900, **context: Any
    ) -> Iterator[Any]:
        """A page that has loaded; the block may click and ask, and fails if the page has a problem.

        Problems are errors in its console, uncaught exceptions, answers of 400 and more, and
        requests that fail or leave this machine. A test that expects one takes it out of
        `page.problems` by `page.problems.clear()`.

        Args:
            target: a file, or an address on loopback.
            width: of the window, in CSS pixels.
            height: of the window, in CSS pixels.
            **context: of playwright's `new_context`, such as `has_touch` and `extra_http_headers`.

        Yields:
            A `playwright.sync_api.Page`, and the list `problems` on it.
        """
        with _running_loop(self._loop):
            opened = self._chromium.new_context(
                viewport={"width": width, "height": height}, **context
            )
            try:
                page = opened.new_page()
                page.problems = []
                _listen(page)
                address = target.resolve().as_uri() if isinstance(target, Path) else target
                page.goto(address, timeout=60_000)
                yield page
                assert page.problems == [], "\n".join(page.problems)
            finally:
                opened.close()


def assert_fits(page: Any) -> None:
    """No part of the page lies beyond the right edge of the window: nobody scrolls sideways."""
    wide = page.evaluate(
        "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert wide[0] <= wide[1], f"the page is {wide[0]} pixels wide, the window {wide[1]}"


def assert_drawn(page: Any, selector: str = ".js-plotly-plot", num_figures: int = 1) -> None:
    """Plotly has drawn as many figures as said, each of some size."""
    page.wait_for_function(
        "([selector, number]) => document.querySelectorAll(selector + ' .main-svg').length >="
        " number",
        arg=[selector, num_figures],
        timeout=30_000,
    )
    sizes = page.eval_on_selector_all(
        selector, "all => all.map(each => [each.offsetWidth, each.offsetHeight])"
    )
    assert len(sizes) == num_figures
    assert all(min(size) > 50 for size in sizes), sizes


def _listen(page: Any) -> None:
    problems: list[str] = page.problems

    def asked(request: Any) -> None:
        address = urlsplit(request.url)
        if address.scheme in ("http", "https", "ws", "wss") and address.hostname not in _LOOPBACK:
            problems.append(f"asked another machine: {request.url}")

    def answered(response: Any) -> None:
        if response.status >= 400:
            problems.append(f"answer {response.status}: {response.url}")

    page.on("console", lambda said: said.type == "error" and problems.append(f"log: {said.text}"))
    page.on("pageerror", lambda error: problems.append(f"exception: {error}"))
    page.on("request", asked)
    page.on("requestfailed", lambda failed: problems.append(f"failed: {failed.url[:200]}"))
    page.on("response", answered)


@contextmanager
def _running_loop(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Playwright's loop is the one that runs here, inside the block alone.

    Its synchronous interface leaves its loop marked as running, and then nothing else could call
    `asyncio.run` in this thread until the browser ends.
    """
    asyncio._set_running_loop(loop)
    try:
        yield
    finally:
        asyncio._set_running_loop(None)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A browser for the length of the block; skips the test, with the reason, if there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip(f"no browser is on the PATH: {', '.join(_NAMES)}")
    driver = playwright.sync_playwright().start()
    loop = asyncio.get_running_loop()
    chromium = None
    try:
        chromium = driver.chromium.launch(executable_path=found, args=_ARGUMENTS)
        asyncio._set_running_loop(None)
        yield Browser(chromium, loop)
    finally:
        with _running_loop(loop):
            if chromium is not None:
                chromium.close()
            driver.stop()
