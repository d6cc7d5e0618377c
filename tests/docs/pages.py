"""What the tests of the documentation read: its pages, without code where that is not prose."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
FENCE = re.compile(r"^( *)(```+)([\w-]*)[^\n]*\n(.*?)^\1\2$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?:    [^\n]*\n|\n(?=    ))+", re.MULTILINE)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


def page_name(page: Path) -> str:
    """Name of a page for a test."""
    return str(page.relative_to(ROOT))


def read(page: Path) -> str:
    """Text of a page."""
    return page.read_text(encoding="utf-8")


def prose(text: str) -> str:
    """Text without fenced and indented code; inline code stays."""
    return INDENTED.sub("\n", FENCE.sub("", text))


def code_lines(text: str) -> list[str]:
    """Lines of code that are no Python, and inline code; continued lines are joined."""
    fenced = [match[4] for match in FENCE.finditer(text) if match[3] not in ("python", "toml")]
    without = FENCE.sub("", text)
    blocks = [*fenced, *(match[0] for match in INDENTED.finditer(without))]
    joined = [re.sub(r"\\\n\s*", " ", block) for block in blocks]
    lines = [line.strip() for block in joined for line in block.splitlines()]
    inline = [
        re.sub(r"\s*\n\s*", " ", each) for each in INLINE.findall(INDENTED.sub("\n", without))
    ]
    return [*lines, *inline]
