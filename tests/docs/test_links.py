"""Every relative link of the pages, with its anchor, leads somewhere."""

import re
from functools import cache
from pathlib import Path

import pytest

from .pages import DOCS, FENCE, PAGES, page_name, prose, read

_LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.MULTILINE)


@cache
def anchors(page: Path) -> frozenset[str]:
    """Anchors of a page's headings, as GitHub and the site make them, and those that it sets."""
    text = FENCE.sub("", read(page))
    found: set[str] = set()
    for title in _HEADING.findall(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
        number, name = 0, slug
        while name in found:
            number += 1
            name = f"{slug}-{number}"
        found.add(name)
    return frozenset(found | set(re.findall(r'<a id="([^"]+)"', text)))


def broken(page: Path) -> list[str]:
    """Links that lead nowhere."""
    wrong = []
    for link in _LINK.findall(prose(read(page))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if target.parent == DOCS / "tutorials" and not anchor:
            target = target.with_suffix(".py")  # `make docs` turns it into a page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title: 2\n\n[a](#a-title-2) [b](page.md#b) [c](c.md) [d](https://d.org)\n")
    assert broken(page) == ["page.md#b", "c.md"]
