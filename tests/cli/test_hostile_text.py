"""Ids, names and paths that a terminal, a spreadsheet or a page would obey: shown, never obeyed."""

import io
import json
import re
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pgti.cli.main import run_command
from pgti.cli.output import build_table, error_console, facts_table, log, print_results
from pgti.cli.progress import progress_bars
from pgti.display import Display, csv_text, print_line, printable
from pgti.errors import PgtiError, RunError
from pgti.figures import escape_text
from pgti.forecasting import RichObserver

HOSTILE = {
    "title of the terminal": "a\x1b]0;owned\x07",
    "color": "a\x1b[31mred",
    "one-byte control": "a\x9b31m",
    "carriage return": "a\rerror: b",
    "new line": "a\npgti: error: b",
    "separator": "a\u2028b\u2029c",
    "null": "a\x00b",
    "delete": "a\x7fb",
    "tabulator": "a\tb",
    "no UTF-8": "a\udcffb",
    "right to left": "a\u202egpj.exe",
    "isolated": "a\u2066b\u2069",
    "mark": "a\u200fb",
}
ONE_OF_EACH = "".join(HOSTILE.values())
OBEYED = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
MARKUP = (
    "speed [km/h]",
    "[/h]",
    "[bold]x",
    ":smile:",
    "<img src=x onerror=alert(1)>",
    "$(id)",
    "{x}",
)
WINDOWS = ("--allow-no-edges", "--model.hidden", "2", "--model.layers", "1",
           "--windows.input-steps", "3", "--windows.horizon", "2", "--max-steps", "1")  # fmt: skip


def run(*tokens: object) -> int:
    return run_command([str(token) for token in tokens])


def check_shown(text: str) -> None:
    """Nothing in it is obeyed, but the ends of its lines."""
    assert not OBEYED.search(text.replace("\n", "")), repr(text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_a_terminal_obeys_is_escaped(text: str) -> None:
    shown = printable(text)
    check_shown(shown)
    assert "\n" not in shown
    assert shown.startswith("a\\")
    assert printable(shown) == shown
    shown.encode()


def test_letters_of_every_language_stay() -> None:
    for text in ("Äpfel °C", "速度", "سرعة", "می‌روم", "👩‍👩‍👧", "10\u00a0km", "m²"):
        assert printable(text) == text


def test_every_control_character_is_escaped() -> None:
    controls = [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) == "Cc"]
    assert len(controls) == 65
    for character in controls:
        check_shown(printable(character))


class Shown(Display):
    """An object whose facts are hostile."""

    def describe(self) -> tuple[str, dict[str, str]]:
        """The same everywhere."""
        return ONE_OF_EACH, {ONE_OF_EACH: ONE_OF_EACH}


def _bars(text: str) -> None:
    with progress_bars(text) as bars:
        bars.rows(1, 2)
        bars.download(text, 1, 2)
        bars.log(text)


def _observed(text: str) -> None:
    observer = RichObserver(error_console())
    observer.begin(text, 10)
    observer.advance(1)
    observer.close()


SINKS: dict[str, Callable[[], object]] = {
    "log": lambda: log(ONE_OF_EACH),
    "line": lambda: print_line(ONE_OF_EACH),
    "table": lambda: print_results(
        {},
        build_table(ONE_OF_EACH, (ONE_OF_EACH, "b"), [(ONE_OF_EACH, "1")]),
        facts_table(ONE_OF_EACH, {ONE_OF_EACH: ONE_OF_EACH}),
        as_json=False,
    ),
    "JSON": lambda: print_results({ONE_OF_EACH: ONE_OF_EACH}, as_json=True),
    "progress": lambda: _bars(ONE_OF_EACH),
    "training": lambda: _observed(ONE_OF_EACH),
}


@pytest.mark.parametrize("sink", SINKS.values(), ids=SINKS)
def test_no_output_is_obeyed(
    sink: Callable[[], object], capsys: pytest.CaptureFixture[str]
) -> None:
    sink()
    captured = capsys.readouterr()
    check_shown(captured.out + captured.err)


@pytest.mark.parametrize("draw", [_bars, _observed])
@pytest.mark.parametrize("text", [*MARKUP, *HOSTILE.values()])
def test_bars_on_a_terminal_show_names_as_they_are(
    draw: Callable[[str], None], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rich writes controls of its own: none of the name's may be among them."""
    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=True, width=200, color_system=None)
    for module in ("pgti.cli.progress", __name__):
        monkeypatch.setattr(f"{module}.error_console", lambda: console)
    draw(text)
    assert printable(text) in buffer.getvalue()
    if text in HOSTILE.values():
        assert text not in buffer.getvalue()


def test_objects_and_errors_show_what_is_in_them() -> None:
    check_shown(repr(Shown()))
    check_shown(Shown()._repr_html_())
    check_shown(escape_text(ONE_OF_EACH))
    for error in (PgtiError(ONE_OF_EACH), RunError(ONE_OF_EACH)):
        check_shown(str(error))
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"), ("@SUM(A1)", "'@SUM(A1)"), ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-A1", "'-A1"), ("-12.5", "-12.5"), ("+3", "+3"), ("a=1", "a=1"), ("", ""), ("-.5", "-.5"),
    ],
)  # fmt: skip
def test_a_cell_of_text_is_no_formula(text: str, cell: str) -> None:
    assert csv_text(text) == cell


def make_table(names: list[str], steps: int = 60) -> pd.DataFrame:
    times = pd.date_range("2025-01-01", periods=steps, freq="h", name="time")
    values = 50 + np.random.default_rng(0).normal(size=(steps, len(names))).round(1)
    return pd.DataFrame(values, index=times, columns=names)


FORMATS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    "csv": lambda frame, path: frame.to_csv(path),
    "parquet": lambda frame, path: frame.to_parquet(path),
    "long.csv": lambda frame, path: frame.melt(ignore_index=False, var_name="sensor").to_csv(path),
    "npz": lambda frame, path: np.savez(path, data=frame, ids=np.array([*frame], dtype=str)),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", [*HOSTILE, "long"])
def test_a_name_that_cannot_be_shown_is_no_id(
    kind: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused in one line that shows where it is, and no store is written."""
    text = HOSTILE.get(name, "x" * 2000)
    source, out = tmp_path / f"readings.{kind}", tmp_path / "store"
    try:
        FORMATS[kind](make_table([text, "b"]), source)
    except (UnicodeEncodeError, OverflowError):
        pytest.skip("no file of this format can hold it")
    code = run("ingest", source, "--out", out)
    captured = capsys.readouterr()
    check_shown(captured.out + captured.err)
    if code == 0:  # the reader made something else of it, as of spaces at the end
        assert kind.endswith("csv")
        ids = json.loads((out / "meta.json").read_text())["node_ids"]
        assert all(printable(each) == each for each in ids)
    else:
        assert code == 2
        assert kind.endswith("csv") or "cannot be shown" in captured.err
        assert len(captured.err.splitlines()) == 1
        assert not out.exists()


def test_a_channel_or_a_feature_that_cannot_be_shown_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_table(["a", "b"]).to_csv(tmp_path / "readings.csv")
    pd.DataFrame({"kind\x1b[1m": ["x", "y"]}, index=pd.Index(["a", "b"], name="sensor")).to_csv(
        tmp_path / "features.csv"
    )
    pd.DataFrame({"kind": ["x\x1b[1m", "y"]}, index=pd.Index(["a", "b"], name="sensor")).to_csv(
        tmp_path / "categories.csv"
    )
    for options in (
        ("--channels", "speed\x1b[1m"),
        ("--units", "km\x07h"),
        ("--static", tmp_path / "features.csv"),
        ("--static", tmp_path / "categories.csv"),
    ):
        out = tmp_path / "store"
        assert run("ingest", tmp_path / "readings.csv", "--out", out, *options) == 2
        error = capsys.readouterr().err
        check_shown(error)
        assert "cannot be shown" in error
        assert not out.exists()


def test_names_of_markup_and_formulas_are_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through training, its errors, the table of forecasts and the report."""
    ids = [*MARKUP, "=1+1", "@x", "-A1", "-12"]
    make_table(ids).to_csv(tmp_path / "readings.csv")
    store, trained = tmp_path / "store", tmp_path / "run"
    assert run("ingest", tmp_path / "readings.csv", "--out", store, "--header",
               "--channels", "speed [km/h]", "--units", "[/h]") == 0  # fmt: skip
    assert run("info", store) == 0
    assert "speed [km/h]" in capsys.readouterr().out
    assert run("train", store, "--run", trained, *WINDOWS) == 0
    assert "[/h]" in capsys.readouterr().out
    errors = tmp_path / "errors.csv"
    assert run("evaluate", trained, "--by", "sensor", "--out", errors) == 0
    assert set(map(csv_text, ids)) <= set(pd.read_csv(errors, dtype=str)["group"])
    for suffix in ("csv", "parquet"):
        assert run("predict", trained, "--out", tmp_path / f"forecasts.{suffix}") == 0
    cells = pd.read_csv(tmp_path / "forecasts.csv", dtype=str)
    assert sorted(cells["sensor"].unique()) == sorted(map(csv_text, ids))
    exact = pd.read_parquet(tmp_path / "forecasts.parquet")
    assert sorted(exact["sensor"].unique()) == sorted(ids)
    page = tmp_path / "report.html"
    assert run("report", trained, "--out", page) == 0
    body = page.read_text()
    assert "<img src=x" not in body
    assert "onerror=alert(1)" in body


def test_a_store_that_was_changed_by_hand_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its names are no longer those that a writer checked."""
    make_table(["a", "b"]).to_csv(tmp_path / "readings.csv")
    store = tmp_path / "store"
    assert run("ingest", tmp_path / "readings.csv", "--out", store) == 0
    meta = store / "meta.json"
    content = json.loads(meta.read_text())
    for text in HOSTILE.values():
        meta.write_text(json.dumps({**content, "node_ids": [text, "b"], "channels": [text],
                                    "units": [text]}))  # fmt: skip
        capsys.readouterr()
        run("info", store)
        captured = capsys.readouterr()
        check_shown(captured.out + captured.err)


@pytest.mark.parametrize("text", [each for each in HOSTILE.values() if "\0" not in each])
def test_paths_are_shown(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for tokens in (
        ("info", tmp_path / text),
        ("train", tmp_path / text),
        ("predict", tmp_path / text, "--out", tmp_path / "x.csv"),
        ("ingest", tmp_path / text, "--out", tmp_path / "out"),
        ("train", tmp_path, "--config", tmp_path / text),
        (text,),
        ("train", f"--{text}"),
    ):
        assert run(*tokens) == 2
        captured = capsys.readouterr()
        check_shown(captured.out + captured.err)
        assert len(captured.err.splitlines()) == 1
