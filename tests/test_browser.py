"""The browser of the tests finds what is wrong with a page."""

import asyncio
from pathlib import Path

import pytest

from .browser import Browser, assert_fits


def _write(path: Path, body: str) -> Path:
    path.write_text(f"<!doctype html><meta charset=utf-8><title>t</title><body>{body}")
    return path


def test_a_sound_page_has_no_problem(browser: Browser, tmp_path: Path) -> None:
    sound = _write(tmp_path / "page.html", "<button onclick='document.title=1'>a</button>")
    with browser.page(sound, 400) as page:
        page.click("button")
        assert page.title() == "1"
        assert_fits(page)
    asyncio.run(asyncio.sleep(0))  # other tests have loops of their own


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("<script>console.error('no data')</script>", "log: no data"),
        ("<script>null.x</script>", "exception: "),
        ("<script src=missing.js></script>", "failed: file:"),
        ("<img src='https://example.com/logo.png'>", "asked another machine: https://example"),
    ],
)
def test_problems_of_a_page_fail_its_test(
    browser: Browser, tmp_path: Path, body: str, problem: str
) -> None:
    with (
        pytest.raises(AssertionError, match=problem),
        browser.page(_write(tmp_path / "page.html", body)) as page,
    ):
        page.wait_for_timeout(20)


def test_a_page_wider_than_its_window_is_found(browser: Browser, tmp_path: Path) -> None:
    wide = _write(tmp_path / "page.html", "<div style='width:600px'>wide</div>")
    with (
        browser.page(wide, 400) as page,
        pytest.raises(AssertionError, match="the page is 608 pixels wide, the window 400"),
    ):
        assert_fits(page)
