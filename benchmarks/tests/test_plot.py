"""Charts in a page that needs no network."""

import json
import sys
from pathlib import Path

import pytest

from pgti.run.results import Machine, Spread
from pgti_bench import output
from pgti_bench.app import run_command
from pgti_bench.errors import BenchError
from pgti_bench.plot import Bar, Chart, Limit, check_plot, write_plot

CHARTS = [
    Chart(
        title="Time of a step",
        unit="s",
        bars=(
            Bar(name="ours", value=Spread.of([1.0, 1.25, 2.0])),
            Bar(name="a copy", value=0.625),
        ),
        limits=(Limit(name="what fits", value=1.75),),
    ),
    Chart(title="Peak memory", unit="GiB", bars=(Bar(name="ours", value=2.0),)),
]


def test_the_page_has_every_figure_and_what_was_left_out(tmp_path: Path) -> None:
    path = tmp_path / "plot.html"
    write_plot(path, "Steps <and> more", CHARTS, Machine.here(), ["PGT: a < b"])
    page = path.read_text(encoding="utf-8")
    for text in ("Time of a step", "Peak memory", "what fits", "1.25", "0.625", "1.75", "GiB"):
        assert text in page
    assert "Steps &lt;and&gt; more" in page
    assert "left out: PGT: a &lt; b" in page
    assert Machine.here().versions["torch"] in page
    # plotly's program is in the page, once, and none is asked of another place.
    assert page.count("plotly.js v") == 1
    assert '<script src="http' not in page


def test_extremes_are_drawn_around_the_median(tmp_path: Path) -> None:
    path = tmp_path / "plot.html"
    write_plot(path, "Steps", CHARTS[:1], Machine.here())
    page = "".join(path.read_text(encoding="utf-8").split())
    assert '"array":[0.75,0.0],"arrayminus":[0.25,0.0]' in page


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"cannot write the plot .*: No such file or directory"):
        write_plot(tmp_path / "none" / "plot.html", "Steps", CHARTS, Machine.here())


def test_plotly_is_asked_for_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_plot(tmp_path / "plot.html")
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(BenchError, match=r"pgti-bench\[plot\]"):
        check_plot(tmp_path / "plot.html")
    check_plot(None)


def test_a_file_that_cannot_be_written_is_refused_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BenchError, match=r"there is no directory .*none"):
        check_plot(tmp_path / "none" / "plot.html")
    with pytest.raises(BenchError, match="it is a directory"):
        check_plot(tmp_path)
    monkeypatch.setattr("pgti_bench.plot.os.access", lambda path, _mode: path != tmp_path)
    with pytest.raises(BenchError, match="permission denied"):
        check_plot(tmp_path / "plot.html")
    (tmp_path / "plot.html").touch()
    check_plot(tmp_path / "plot.html")
    assert (tmp_path / "plot.html").read_bytes() == b""


@pytest.mark.parametrize(
    "tokens", [("memory",), ("step",), ("loader",), ("epoch", "store")], ids=lambda each: each[0]
)
def test_every_command_refuses_such_a_file(
    tokens: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "none" / "plot.html"
    assert run_command([*tokens, "--plot", str(plot), "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.strip().splitlines()
    assert "there is no directory" in line


def test_figures_are_out_before_they_are_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_args: object) -> None:
        raise BenchError("the disk is full")

    monkeypatch.setattr(output, "write_plot", fail)
    options = ("--measure", "none", "--plot", str(tmp_path / "plot.html"), "--json")
    assert run_command(["memory", *options]) == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out)["datasets"]
    assert "the disk is full" in captured.err
