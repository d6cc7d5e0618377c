"""Collect the pages of the site: `python docs/stage.py build/pages`, which zensical.toml reads.

Pages of the repository's top are pages of the site, too, and links follow them.
"""

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOP = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")


def stage(out: Path) -> None:
    """Write the pages and pictures of docs into a directory, and what they link to."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(ROOT / "docs", out, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copytree(ROOT / "examples", out / "examples")
    for name in TOP:
        shutil.copy(ROOT / name, out / name.lower())
    for page in out.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        page.write_text(rewrite_links(text), encoding="utf-8")


def rewrite_links(text: str) -> str:
    """Turn links from the repository's layout into those of the site, where docs is the top."""
    text = re.sub(r"\]\(docs/", "](", text)
    text = re.sub(r"\]\(((?:\.\./)*)\.\./examples/", r"](\1examples/", text)
    top = "|".join(map(re.escape, TOP))
    return re.sub(rf"\]\(((?:\.\./)*?)(?:\.\./)?({top})", lambda m: f"]({m[1]}{m[2].lower()}", text)


if __name__ == "__main__":
    stage(Path(sys.argv[1]))
