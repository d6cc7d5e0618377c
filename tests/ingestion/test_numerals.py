"""Decimal signs, thousands, and texts that mean "missing"."""

from pathlib import Path

import numpy as np
import pytest

from pgti.errors import DataError, name_flags
from pgti.ingestion import IngestOptions, append, ingest

TIMES = [f"2024-03-13 {hour:02}:00" for hour in range(4)]


def table(folder: Path, cells: list[list[str]], delimiter: str, name: str = "a.csv") -> Path:
    """A file of two sensors, with quotes around cells that need them."""
    lines = [delimiter.join(("time", "a", "b"))]
    for time, row in zip(TIMES, cells, strict=False):
        quoted = [f'"{cell}"' if delimiter in cell else cell for cell in row]
        lines.append(delimiter.join((time, *quoted)))
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def stored(source: Path, options: IngestOptions | None = None) -> list[list[float]]:
    """The readings of a file."""
    store = ingest(source, source.parent / "s", options)
    return store.read(0, store.meta.num_steps)[..., 0].tolist()


@pytest.mark.parametrize("delimiter", [";", "\t", ",", "|"])
def test_decimal_commas_are_recognized(tmp_path: Path, delimiter: str) -> None:
    """A comma that is not before three digits is a decimal sign, wherever it stands."""
    source = table(tmp_path, [["12,5", "7"], ["-0,25", "1,25e2"], [",5", "3,"]], delimiter)
    assert stored(source) == [[12.5, 7], [-0.25, 125], [0.5, 3]]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1.234,5", "12"], [1234.5, 12]),
        (["1 234,5", "1 234 567"], [1234.5, 1234567]),
        (["1\u202f234,5", "1\u00a0234"], [1234.5, 1234]),
        (["1'234.5", "12\u2019345"], [1234.5, 12345]),
        (["1,234.5", "1,234"], [1234.5, 1234]),
        (["1,234,568", "\u22125"], [1234568, -5]),
        (["1.234.568", "1,5"], [1234568, 1.5]),
        (["0.123", "1.234"], [np.float32(0.123), np.float32(1.234)]),
    ],
)
def test_thousands(tmp_path: Path, cells: list[str], values: list[float]) -> None:
    """Dots, commas, blanks of any width and apostrophes between thousands."""
    for place, delimiter in enumerate(("\t", ";")):
        folder = tmp_path / str(place)
        folder.mkdir()
        assert stored(table(folder, [cells, cells], delimiter)) == [values, values]


@pytest.mark.parametrize(
    ("cells", "delimiter"),
    [
        ([["1,234", "7"]] * 2, ";"),
        ([["1,234", "7"]] * 2, ","),
        ([["1.234", "7"]] * 2, ";"),
        ([["7", "7"]] * 3 + [["1,234", "7"]], ";"),
        ([["7", "7"]] * 3 + [["1.234", "7"]], "\t"),
    ],
)
def test_numbers_that_could_be_two(tmp_path: Path, cells: list[list[str]], delimiter: str) -> None:
    """What could be 1.234 or 1234 is asked about, and read as the user says."""
    source = table(tmp_path, cells, delimiter)
    with pytest.raises(DataError, match=r"'1[.,]234', which is 1.234 .*or 1234 .*decimal="):
        stored(source)
    sign = "," if "," in cells[-1][0] else "."
    assert stored(source, IngestOptions(decimal=sign))[-1] == [np.float32(1.234), 7]
    other = IngestOptions(decimal="." if sign == "," else ",", overwrite=True)
    assert stored(source, other)[-1] == [1234, 7]


@pytest.mark.parametrize("missing", [(-999.0,), ("-999",)])
def test_codes_show_no_sign(tmp_path: Path, missing: tuple[float | str, ...]) -> None:
    """A code for missing readings, or a long whole number, is no hint at dots between thousands."""
    source = table(tmp_path, [["1.234", "-999"], ["-999", "5.678"]], ";")
    values = stored(source, IngestOptions(missing=missing))
    np.testing.assert_array_equal(values, np.float32([[1.234, np.nan], [np.nan, 5.678]]))
    source = table(tmp_path, [["1.234", "12000"], ["2.345", "5"]], ";")
    assert stored(source, IngestOptions(overwrite=True))[0] == [np.float32(1.234), 12000]


def test_far_rows_are_asked_about(tmp_path: Path) -> None:
    """A number that could be two is refused wherever it stands, with its line."""
    rows = "".join(f"{row % 900};{row % 7}\n" for row in range(9_000)) + "NaN;\n"
    (tmp_path / "a.csv").write_text(f"a;b\n{rows}1,234;5\n")
    with pytest.raises(DataError, match=r"line 9003, column 1 \(a\).*'1,234'.*decimal=','"):
        stored(tmp_path / "a.csv", IngestOptions(budget_bytes=1))
    (tmp_path / "a.csv").write_text(f"a;b\n{rows}1.234;5\n")
    with pytest.raises(DataError, match=r"'1.234', which is 1.234 .*or 1234"):
        stored(tmp_path / "a.csv", IngestOptions(header=True))


def test_both_signs_contradict(tmp_path: Path) -> None:
    """A file with decimal points and commas is refused."""
    with pytest.raises(DataError, match=r"'1.5'.*'2,5'.*the same way"):
        stored(table(tmp_path, [["1.5", "2,5"]], ";"))


def test_a_point_among_decimal_commas_is_refused(tmp_path: Path) -> None:
    """With a decimal comma, 1.5 is not a number and 1.500 is 1500."""
    source = table(tmp_path, [["1,5", "1.5"], ["2,5", "1"]], ";")
    with pytest.raises(DataError, match=r"line 2, column 3 \(b\) .*'1.5'"):
        stored(source, IngestOptions(decimal=","))


def test_the_sign_is_remembered(tmp_path: Path) -> None:
    """Newer readings are read with the decimal sign that the user gave."""
    store = ingest(
        table(tmp_path, [["1,234", "1,5"]] * 3, ";"), tmp_path / "s", IngestOptions(decimal=",")
    )
    newer = table(tmp_path, [["1,234", "1,5"]] * 3 + [["1,000", "2,000"]], ";", "b.csv")
    assert append(store, newer).read(3, 4)[..., 0].tolist() == [[1, 2]]


@pytest.mark.parametrize("code", ["-", "M", "*", "no data", "--"])
def test_texts_that_mean_missing(tmp_path: Path, code: str) -> None:
    """A text is refused with the option that declares it, and missing once it does."""
    source = table(tmp_path, [["1", code], ["2", "3"], [code, "4"]], ",")
    with pytest.raises(DataError, match="missing") as caught:
        stored(source)
    assert f"holds {code!r}" in str(caught.value)
    assert f"missing={code!r}" in str(caught.value)
    values = stored(source, IngestOptions(missing=(code,)))
    np.testing.assert_array_equal(values, [[1, np.nan], [2, 3], [np.nan, 4]])


def test_texts_are_remembered(tmp_path: Path) -> None:
    """Newer readings have the missing codes of the store, numbers and texts."""
    source = table(tmp_path, [["1", "-"], ["-999", "3"], ["5", "4"]], ",")
    store = ingest(source, tmp_path / "s", IngestOptions(missing=("-", -999.0)))
    newer = table(tmp_path, [["1", "-"], ["-999", "3"], ["5", "4"], ["-", "-999"]], ",", "b.csv")
    assert np.isnan(append(store, newer).read(3, 4)).all()


def test_all_texts_are_named_at_once(tmp_path: Path) -> None:
    """One refusal names what recurs in any column, as flags take it."""
    source = table(tmp_path, [["1", "-"], ["M", "3"], ["M", "4"]], ",")
    with pytest.raises(DataError) as caught, name_flags():
        stored(source)
    assert "line 3, column 2 (a)" in str(caught.value)
    assert "(--missing M,-)" in str(caught.value)


def test_texts_and_numbers_that_mean_missing(tmp_path: Path) -> None:
    """Both kinds of code at once, blanks around them, and what spreadsheets write."""
    source = table(tmp_path, [["1", " M "], ["-999", "#DIV/0!"], ["2", "#N/A"], ["3", "   "]], ",")
    values = stored(source, IngestOptions(missing=("M", -999.0)))
    nan = np.nan
    np.testing.assert_array_equal(values, [[1, nan], [nan, nan], [2, nan], [3, nan]])


def test_blanks_comments_and_units(tmp_path: Path) -> None:
    """Tables between blanks, comments above them and a row of units below the header."""
    text = "# a logger\n#\n  time   a     b\n 1   2.5   3\n 2  -1.25  NaN\n"
    (tmp_path / "a.txt").write_text(text)
    store = ingest(tmp_path / "a.txt", tmp_path / "s", IngestOptions(timestamps=False))
    assert store.meta.node_ids == ("a", "b")
    np.testing.assert_array_equal(store.read(0, 2)[..., 0], [[2.5, 3], [-1.25, np.nan]])
    (tmp_path / "b.csv").write_text("#time,a,b\n,mph,%\n2024-01-01,1.5,2\n2024-01-02,2.5,3\n")
    store = ingest(tmp_path / "b.csv", tmp_path / "t")
    assert store.meta.node_ids == ("a", "b")
    assert store.read(0, 2)[..., 0].tolist() == [[1.5, 2], [2.5, 3]]
    assert any("line 2 of b.csv (mph, %)" in note for note in store.notes)
    (tmp_path / "c.csv").write_text("# x\ntime,a\n2024-01-01,1.5\n2024-01-02,oops\n")
    with pytest.raises(DataError, match="line 4, column 2"):
        ingest(tmp_path / "c.csv", tmp_path / "u")


def test_whole_numbers_that_would_be_rounded_are_refused(tmp_path: Path) -> None:
    """A number above 2^53 loses no digit without a word; a code for missing may be one."""
    source = table(tmp_path, [["9007199254740993", "1"], ["9007199254740992", "1"]], ",")
    with pytest.raises(DataError, match=r"line 2, column 2 \(a\) .*9007199254740993.*2\^53"):
        stored(source)
    values = stored(source, IngestOptions(missing=(9007199254740993.0,)))
    assert np.isnan(values[0][0])


def test_what_programs_write_around_tables(tmp_path: Path) -> None:
    """Excel's hint of the delimiter, and the line ends of old Macintoshes."""
    (tmp_path / "a.csv").write_text("sep=;\na;b\n1,5;2\n2,5;3\n")
    assert stored(tmp_path / "a.csv") == [[1.5, 2], [2.5, 3]]
    (tmp_path / "b.csv").write_bytes(b"a,b\r1.5,2\r2.5,3\r")
    store = ingest(tmp_path / "b.csv", tmp_path / "t")
    assert store.read(0, 2)[..., 0].tolist() == [[1.5, 2], [2.5, 3]]


def test_no_line_is_as_wide_as_the_first(tmp_path: Path) -> None:
    """A title above the table, or a delimiter at the end of each row, is named with its line."""
    (tmp_path / "a.csv").write_text("Report of 2024\na,b\n1.5,2\n")
    with pytest.raises(DataError, match=r"line 2 of a.csv has 2 cells and the first has 1"):
        stored(tmp_path / "a.csv")
