"""The tutorials as pages of the site and as notebooks: `python docs/build_tutorials.py --out DIR`.

Each `docs/tutorials/NAME.py` (jupytext's percent format) is executed in a kernel of its own, in an
empty directory. DIR receives `NAME.md`, a page with all outputs; `NAME.ipynb`, the notebook to
download; and `plotly.min.js`, which the figures of all pages share. A page loads it from beside
itself.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import Preprocessor
from plotly.offline import get_plotlyjs
from traitlets.config import Config

SOURCES = Path(__file__).parent / "tutorials"
PLOTLY = "application/vnd.plotly.v1+json"
SCRIPT = "plotly.min.js"
_WIDTH = 88
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_DRAW = """
<script src="%s"></script>
<script>
for (const place of document.querySelectorAll(".pgti-figure")) {
  const figure = JSON.parse(place.nextElementSibling.textContent);
  Plotly.newPlot(place, figure.data, figure.layout, {responsive: true, displaylogo: false});
}
</script>
"""


def names() -> list[str]:
    """Names of the tutorials, in their order."""
    return sorted(path.stem for path in SOURCES.glob("*.py"))


def execute(name: str, timeout: int = 600) -> nbformat.NotebookNode:
    """Run a tutorial in a kernel, in an empty directory.

    Outputs show that directory as ~/tutorial.

    Raises:
        CellExecutionError: if a cell raises.
        RuntimeError: if an output shows another place of this machine.
    """
    notebook = jupytext.read(SOURCES / f"{name}.py")
    notebook.metadata["kernelspec"] = {
        "name": "python3", "display_name": "Python 3", "language": "python"
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        client = NotebookClient(
            notebook,
            timeout=timeout,
            resources={"metadata": {"path": directory}},
            config=Config(KernelManager={"transport": "ipc", "ip": f"{directory}/.ipc"}),
        )
        client.execute(env=_environment(directory))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
    text = nbformat.writes(notebook).replace(directory, "~/tutorial")
    for place in (tempfile.gettempdir(), sys.prefix, str(SOURCES.parents[1])):
        if place in text:
            near = text[max(0, text.index(place) - 300) :][:600]
            raise RuntimeError(f"an output of the tutorial {name} shows {place}: {near}")
    return nbformat.reads(text, as_version=4)


def _environment(directory: str) -> Mapping[str, str]:
    """That of this process, with one thread, figures as data, and no settings of the user's."""
    programs = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return os.environ | {
        "PATH": programs,  # torchrun
        "OMP_NUM_THREADS": "1",
        "PLOTLY_RENDERER": "plotly_mimetype",
        "IPYTHONDIR": f"{directory}/.ipython",
        "JUPYTER_CONFIG_DIR": f"{directory}/.jupyter",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


class _Outputs(Preprocessor):
    """Outputs as HTML that a page shows without scripts of its own."""

    def preprocess_cell(
        self, cell: nbformat.NotebookNode, resources: dict[str, Any], _: int
    ) -> tuple[nbformat.NotebookNode, dict[str, Any]]:
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                lines = _ANSI.sub("", output.text).splitlines()
                output.text = "\n".join(map(_wrap, lines)) + "\n"
                continue
            data = output.get("data", {})
            if PLOTLY in data:
                output.data = {"text/html": _figure(data[PLOTLY])}
                resources["has_figures"] = True
            elif "text/html" in data:  # a table, which may be wider than the page
                table = re.sub(r"<style scoped>.*?</style>", "", data["text/html"], flags=re.DOTALL)
                table = re.sub(r"<table[^>]*>", "<table>", table)  # the site has its own borders
                output.data = {"text/html": f'<div class="pgti-output">{table}</div>'}
        return cell, resources


def _wrap(line: str) -> str:
    """A long message in several lines; a table keeps its columns."""
    is_message = len(line) > _WIDTH and not re.search(r"\S   *\S", line)
    return textwrap.fill(line, _WIDTH, break_on_hyphens=False) if is_message else line


def _figure(figure: Mapping[str, Any]) -> str:
    """A place for a figure, and its description behind it."""
    height = figure["layout"].get("height", 450)
    described = json.dumps({part: figure[part] for part in ("data", "layout")})
    described = described.replace("</", "<\\/")
    return (
        f'<div class="pgti-figure" style="height: {height}px"></div>\n'
        f'<script type="application/json">{described}</script>'
    )


def page(name: str, notebook: nbformat.NotebookNode) -> str:
    """The notebook as Markdown, with a link to it below the heading."""
    exporter = MarkdownExporter(preprocessors=[_Outputs])
    text, resources = exporter.from_notebook_node(notebook)
    heading, _, rest = text.lstrip().partition("\n")
    link = f"[Download this page as a notebook]({name}.ipynb)"
    end = _DRAW % SCRIPT if resources.get("has_figures") else ""
    return f"{heading}\n\n{link}\n{rest.rstrip()}\n{end}"


def build(out: Path, chosen: list[str]) -> None:
    """Execute tutorials and write their pages, notebooks and the script of their figures."""
    out.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        print(f"executing the tutorial {name}", file=sys.stderr)
        notebook = execute(name)
        nbformat.write(notebook, out / f"{name}.ipynb")
        (out / f"{name}.md").write_text(page(name, notebook), encoding="utf-8")
    (out / SCRIPT).write_text(get_plotlyjs(), encoding="utf-8")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory of pages and notebooks")
    parser.add_argument("names", nargs="*", help="tutorials; by default all")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(names()))
    if unknown:
        parser.error(f"there is no tutorial {unknown[0]}: they are {', '.join(names())}")
    build(arguments.out, arguments.names or names())


if __name__ == "__main__":
    main()
