"""`pgti fetch` and `pgti.fetch`: downloads are cached and checked; what is refused."""

import hashlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import pgti
from pgti.cli.main import run_command
from pgti.cli.progress import progress_bars
from pgti.datasets import DATASETS, Dataset
from pgti.errors import ConfigError, DataError, FetchError, MissingExtraError
from pgti.store import SeriesStore

from . import published_files
from .file_server import FileServer, Served

CHICKENPOX, FILE = "Chickenpox-Hungary", "chickenpox.json"
Point = Callable[..., Dataset]


def run(*tokens: object) -> int:
    return run_command([str(token) for token in tokens])


def refusal(capsys: pytest.CaptureFixture[str], *tokens: object) -> str:
    """The one line in which `pgti fetch` refuses, with exit code 2."""
    capsys.readouterr()
    assert run("fetch", *tokens) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if "downloading" not in line]
    assert len(lines) == 1, err
    assert lines[0].startswith("pgti: error: ")
    return lines[0]


def names(folder: Path) -> list[str]:
    """Names of what is in a folder, in order."""
    return sorted(path.name for path in folder.iterdir())


def test_from_a_name_to_a_store(
    server: FileServer, pointed: Point, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Downloaded once, written down, and made a store; the next time nothing is asked for."""
    pointed(CHICKENPOX, server.url)
    content = published_files.chickenpox()
    server.files[FILE] = Served(content)
    cache = tmp_path / "cache"
    tokens = ("fetch", "chickenpox-hungary", "--cache", cache, "--json")
    assert run(*tokens, "--out", tmp_path / "store") == 0
    out, err = capsys.readouterr()
    summary = json.loads(out.splitlines()[-1])
    store = SeriesStore.open(tmp_path / "store")
    assert summary["dataset"] == CHICKENPOX
    assert summary["store"] == str(tmp_path / "store")
    assert (summary["steps"], summary["sensors"], summary["edges"]) == (4, 3, 5)
    assert summary["fingerprint"] == store.fingerprint
    assert "the readings are no counts" in err
    assert re.search(r"4 steps of 3 sensors, change.*, 5 edges, ", err)
    folder = cache / "chickenpox-hungary"
    assert names(folder) == ["checksums.json", FILE]
    written = json.loads((folder / "checksums.json").read_text())
    sha256 = hashlib.sha256(content).hexdigest()
    url = f"{server.url}/{FILE}"
    assert written == {FILE: {"sha256": sha256, "bytes": len(content), "url": url}}
    server.files.clear()
    assert run(*tokens, "--out", tmp_path / "again") == 0
    assert len(server.asked) == 1
    assert SeriesStore.open(tmp_path / "again").fingerprint == store.fingerprint


def test_several_files_in_an_archive_and_beside_it(
    server: FileServer, pointed: Point, tmp_path: Path
) -> None:
    """A zip archive, and three files of which one is a list of ids."""
    pointed("METR-LA", server.url)
    pointed("PEMS03", server.url)
    times = pd.date_range("2012-03-01", periods=50, freq="5min")
    speeds = np.random.default_rng(1).integers(1, 70, (50, 2)) + 0.5
    members = {
        "node_values.npy": published_files.npy(published_files.clocked(speeds, times)),
        "adj_mat.npy": published_files.npy(np.eye(2)),
    }
    archive = io.BytesIO()
    np.savez(archive, data=np.ones((6, 2, 1)))
    server.files = {
        "METR-LA.zip": Served(published_files.zipped(members)),
        "PEMS03.npz": Served(archive.getvalue()),
        "PEMS03.csv": Served(b"from,to,distance\n7,9,0.5\n"),
        "PEMS03.txt": Served(b"9\n7\n"),
    }
    metr_la = pgti.fetch("METR-LA", tmp_path / "stores/metr-la", cache=tmp_path / "cache")
    assert metr_la.meta.num_steps == 50
    store = SeriesStore.open(tmp_path / "stores/metr-la")
    np.testing.assert_array_equal(store.read(0, 50)[..., 0], speeds)
    assert names(tmp_path / "cache/metr-la") == ["METR-LA.zip", "checksums.json"]
    pems03 = pgti.fetch("pems03", tmp_path / "stores/pems03", cache=tmp_path / "cache")
    assert pems03.meta.node_ids == ("9", "7")
    assert names(tmp_path / "stores") == ["metr-la", "pems03"]
    assert len(json.loads((tmp_path / "cache/pems03/checksums.json").read_text())) == 3


def first_fetch(server: FileServer, pointed: Point, tmp_path: Path) -> Path:
    """A cache that holds a file whose checksum is written down; its folder."""
    pointed(CHICKENPOX, server.url)
    server.files[FILE] = Served(published_files.chickenpox())
    pgti.fetch(CHICKENPOX, tmp_path / "first", cache=tmp_path / "cache")
    return tmp_path / "cache/chickenpox-hungary"


def test_a_file_that_changed_on_the_disk(
    server: FileServer, pointed: Point, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused and nothing is replaced; the user decides which one to trust."""
    folder = first_fetch(server, pointed, tmp_path)
    written = (folder / "checksums.json").read_bytes()
    changed = published_files.chickenpox().replace(b"1.25", b"1.75")
    (folder / FILE).write_bytes(changed)
    tokens = (CHICKENPOX, "--cache", tmp_path / "cache", "--out", tmp_path / "store")
    line = refusal(capsys, *tokens)
    sha256 = hashlib.sha256(changed).hexdigest()[:12]
    assert f"{FILE} has SHA-256 {sha256}... and " in line
    assert "it has changed since; remove it to download it again, or its entry in" in line
    assert (folder / FILE).read_bytes() == changed
    assert (folder / "checksums.json").read_bytes() == written
    assert not (tmp_path / "store").exists()
    assert len(server.asked) == 1
    (folder / "checksums.json").write_text("{}")
    assert run("fetch", *tokens) == 0
    assert SeriesStore.open(tmp_path / "store").read(0, 1)[0, 1, 0] == 1.75


def test_a_file_that_changed_at_its_source(
    server: FileServer, pointed: Point, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that differs from the one first used is discarded."""
    folder = first_fetch(server, pointed, tmp_path)
    written = (folder / "checksums.json").read_bytes()
    (folder / FILE).unlink()
    server.files[FILE] = Served(published_files.chickenpox() + b"\n")
    tokens = (CHICKENPOX, "--cache", tmp_path / "cache", "--out", tmp_path / "store")
    line = refusal(capsys, *tokens)
    assert "does not have the checksum sha256:" in line
    assert "was recorded when it was first used, and was discarded" in line
    assert names(folder) == ["checksums.json"]
    assert (folder / "checksums.json").read_bytes() == written
    server.files[FILE] = Served(published_files.chickenpox())
    assert run("fetch", *tokens) == 0


def test_a_file_that_is_not_what_its_publisher_states(
    server: FileServer, pointed: Point, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where an MD5 is known in advance, not even the first download is taken on trust."""
    pointed("PEMS08", server.url, keep_md5=True)
    archive = io.BytesIO()
    np.savez(archive, data=np.ones((6, 2, 3)))
    server.files["PEMS08.npz"] = Served(archive.getvalue())
    tokens = ("PEMS08", "--cache", tmp_path / "cache", "--out", tmp_path / "store")
    line = refusal(capsys, *tokens)
    assert (
        f"does not have the checksum md5:{DATASETS['PEMS08'].downloads[0].md5} that its publ"
        in line
    )
    assert names(tmp_path / "cache/pems08") == []
    (tmp_path / "cache/pems08/PEMS08.npz").write_bytes(archive.getvalue())
    line = refusal(capsys, *tokens)
    assert "PEMS08.npz does not have the MD5 2a528d169c0d90294c9e24288a430132" in line


def test_a_file_of_no_use_is_not_written_down(
    server: FileServer, pointed: Point, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that no store can be built from is not recorded; the message says where it is."""
    pointed(CHICKENPOX, server.url)
    server.files[FILE] = Served(published_files.chickenpox()[:-5])
    tokens = (CHICKENPOX, "--cache", tmp_path / "cache", "--out", tmp_path / "store")
    line = refusal(capsys, *tokens)
    folder = tmp_path / "cache/chickenpox-hungary"
    assert "chickenpox.json cannot be read as JSON" in line
    assert line.endswith(f"if it is damaged, remove it from {folder}")
    assert names(folder) == [FILE]
    (folder / FILE).unlink()
    server.files[FILE] = Served(published_files.chickenpox())
    assert run("fetch", *tokens) == 0


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": {"sha256": "1"}}', '{"a": 3}'])
def test_checksums_that_cannot_be_read(
    server: FileServer, pointed: Point, tmp_path: Path, content: str
) -> None:
    """A damaged list is never passed over."""
    folder = first_fetch(server, pointed, tmp_path)
    (folder / "checksums.json").write_text(content)
    with pytest.raises(DataError, match=r"checksums.json cannot be read as checksums .* accept"):
        pgti.fetch(CHICKENPOX, tmp_path / "store", cache=tmp_path / "cache")
    assert (folder / "checksums.json").read_text() == content


def test_without_a_network(
    server: FileServer, pointed: Point, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line: what, from where, and where to put it; then the files go another way."""
    dataset = pointed("METR-LA", "http://127.0.0.1:9")  # the port of a service that nobody runs
    del server
    tokens = ("metr-la", "--cache", tmp_path / "cache", "--out", tmp_path / "store")
    line = refusal(capsys, *tokens)
    assert "METR-LA.zip could not be downloaded from http://127.0.0.1:9/METR-LA.zip: there" in line
    assert line.endswith(
        f"(see {dataset.source_page}) and pass --from FOLDER, which holds node_values.npy and "
        "adj_mat.npy (zipped in METR-LA.zip, too), or metr-la.h5 and adj_mx.pkl"
    )
    assert not (tmp_path / "store").exists()
    assert names(tmp_path / "cache/metr-la") == []


def test_what_must_be_had_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No address is made up for files that have none."""
    line = refusal(capsys, "largest-sd", "--out", tmp_path / "store", "--years", "2018,2019")
    assert "LargeST-SD cannot be downloaded: download the files by hand (see https://www." in line
    assert "ca_his_raw_2018.h5 and ca_his_raw_2019.h5 and ca_meta.csv and ca_rn_adj.npy" in line
    assert names(tmp_path) == []


@pytest.mark.parametrize("zeros", [None, "missing", "observed"])
def test_what_a_zero_means_is_told_unless_the_user_says_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], zeros: str | None
) -> None:
    """A line that contradicted the user would be worse than none."""
    np.savez(tmp_path / "PEMS07.npz", data=np.array([[[0.0], [1.0]], [[2.0], [3.0]]]))
    (tmp_path / "PEMS07.csv").write_text("from,to,cost\n0,1,0.5\n")
    said = () if zeros is None else ("--zeros", zeros)
    assert run("fetch", "pems07", "--from", tmp_path, "--out", tmp_path / "s", "--json", *said) == 0
    out, err = capsys.readouterr()
    assert ("a flow of 0 counts as missing" in err) == (zeros is None)
    assert "28,224 rows from 2017-05-01 end on 2017-08-06" in err
    assert json.loads(out)["missing_fraction"] == (0 if zeros == "observed" else 0.25)


def test_files_of_the_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is downloaded, cached or changed; capitals of names do not matter."""
    folder = tmp_path / "mine"
    folder.mkdir()
    line = refusal(capsys, CHICKENPOX, "--from", folder, "--out", tmp_path / "store")
    assert "mine does not hold the files of Chickenpox-Hungary (see https://github.com/" in line
    assert "they are chickenpox.json" in line
    (folder / "ChickenPox.JSON").write_bytes(published_files.chickenpox())
    assert run("fetch", CHICKENPOX, "--from", folder, "--out", tmp_path / "store") == 0
    assert names(tmp_path) == ["mine", "store"]
    assert names(folder) == ["ChickenPox.JSON"]
    line = refusal(capsys, CHICKENPOX, "--from", tmp_path / "no", "--out", tmp_path / "s")
    assert "the folder" in line
    assert "does not exist" in line
    line = refusal(
        capsys, CHICKENPOX, "--from", folder / "ChickenPox.JSON", "--out", tmp_path / "s"
    )
    assert "is a file: give the folder" in line
    assert "pgti ingest" in line


def test_the_store_has_the_name_of_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In lower case, in the current folder; an existing one is not replaced by default."""
    (tmp_path / FILE).write_bytes(published_files.chickenpox())
    monkeypatch.chdir(tmp_path)
    assert run("fetch", CHICKENPOX, "--from", ".") == 0
    assert names(tmp_path) == ["chickenpox-hungary", FILE]
    line = refusal(capsys, CHICKENPOX, "--from", ".")
    assert "chickenpox-hungary exists already" in line
    assert run("fetch", CHICKENPOX, "--from", ".", "--overwrite") == 0


def test_a_target_that_exists_is_told_before_anything_is_downloaded(
    server: FileServer, pointed: Point, tmp_path: Path
) -> None:
    """Nine gigabytes are not fetched for a store that cannot be created."""
    first_fetch(server, pointed, tmp_path)
    with pytest.raises(pgti.StoreError, match="first exists already"):
        pgti.fetch(CHICKENPOX, tmp_path / "first", cache=tmp_path / "other")
    assert len(server.asked) == 1
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("METR-LB", {}, "data set 'METR-LB' is unknown: similar names are METR-LA"),
        ("METR-LA", {"years": (2012,)}, "years is 2012 and METR-LA is not by year"),
        ("METR-LA", {"interval": "15min"}, "interval is 15min: for METR-LA it is 5min"),
        ("LargeST-SD", {"interval": "1h"}, "interval is 1h: for LargeST-SD it is 15min or 5min"),
        ("LargeST-SD", {"years": (2016, 2017)}, "years is 2016, 2017: they must be consecutive"),
        ("LargeST-SD", {"years": (2017, 2019)}, "years is 2017, 2019: they must be consecutive"),
        ("METR-LA", {"zeros": "real"}, "zeros is 'real': it must be one of missing, observed"),
    ],
)
def test_options_that_do_not_fit(
    tmp_path: Path, name: str, options: dict[str, object], message: str
) -> None:
    """What makes no sense for a data set is refused before anything is done."""
    with pytest.raises(ConfigError, match=message):
        pgti.fetch(name, tmp_path / "store", **options)  # type: ignore[arg-type]
    assert names(tmp_path) == []


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    """Something else has its name."""
    pytest.importorskip("pooch", reason="pooch is not installed")
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(FetchError, match=r"cache/metr-la cannot be created .* with cache"):
        pgti.fetch("METR-LA", tmp_path / "store", cache=tmp_path / "cache")


def test_downloading_needs_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install; files of the user need nothing."""
    monkeypatch.setitem(sys.modules, "pooch", None)  # importing it now fails
    for cache in (None, tmp_path / "cache"):
        with pytest.raises(MissingExtraError, match=r"pooch .*pgti\[datasets\]"):
            pgti.fetch(CHICKENPOX, tmp_path / "store", cache=cache)
    (tmp_path / FILE).write_bytes(published_files.chickenpox())
    assert pgti.fetch(CHICKENPOX, tmp_path / "store", source=tmp_path).meta.num_steps == 4


def test_the_customary_cache(
    server: FileServer, pointed: Point, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system keeps caches, unless the user names a place."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the place differs from system to system")
    pointed(CHICKENPOX, server.url)
    server.files[FILE] = Served(published_files.chickenpox())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    pgti.fetch(CHICKENPOX, tmp_path / "store")
    assert names(tmp_path / "home/pgti/chickenpox-hungary") == ["checksums.json", FILE]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_for_terminals(is_terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Bars for bytes and rows on a terminal and nowhere else; lines are always said."""
    drawn = io.StringIO()
    console = Console(file=drawn, force_terminal=is_terminal, width=100)
    with progress_bars("ingest", console) as bars:
        bars.log("a line [that] is said")
        bars.download("a.zip", 3_000_000, 10_000_000)
        bars.download("b.zip", 3_000_000, None)
        bars.rows(3, 10)
        bars.rows(4, None)
    shown = drawn.getvalue() if is_terminal else capsys.readouterr().err
    assert "pgti: a line [that] is said" in shown
    assert ("3.0 of 10.0 MB" in drawn.getvalue()) == is_terminal
    assert ("4 rows" in drawn.getvalue()) == is_terminal


def test_rows_are_logged_every_minute(capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no terminal."""
    now = 0.0
    with progress_bars("ingest", Console(file=io.StringIO()), lambda: now) as bars:
        for done in range(1, 11):
            now += 25
            bars.rows(1_000 * done, None if done < 5 else 10_000)
    assert capsys.readouterr().err.splitlines() == [
        "pgti: ingest: 3,000 rows",
        "pgti: ingest: 6,000 of 10,000 rows",
        "pgti: ingest: 9,000 of 10,000 rows",
    ]


def test_nothing_loads_pooch_before_it_is_needed() -> None:
    """Importing the package, and listing data sets, needs no library for downloads."""
    script = (
        "import sys, pgti.cli.main\n"
        "assert pgti.cli.main.run_command(['datasets', '--json']) == 0\n"
        "print(sorted({'pooch', 'requests', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
