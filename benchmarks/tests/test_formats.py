"""`pgti-bench formats`: a file of every format, ingested within a limit."""

import json
from pathlib import Path

import pytest

from pgti.ingestion import ingest
from pgti_bench.app import run_command
from pgti_bench.formats import measure_formats
from pgti_bench.large_files import FORMATS, options_of


@pytest.mark.parametrize("name", FORMATS)
def test_every_file_can_be_read(tmp_path: Path, name: str) -> None:
    """The files that are measured hold what they should: the sensors, some rows."""
    file_name, write = FORMATS[name]
    path = tmp_path / file_name
    write(path, 100_000)
    axes = {"axes": tuple(options_of(name)[1].split(","))} if options_of(name) else {}
    store = ingest(path, tmp_path / "store", **axes)
    widths = {"CSV of 207 sensors": 207, "CSV of 11,160 sensors": 11_160}
    assert store.meta.num_nodes == widths.get(name, 1_000)
    assert store.meta.num_steps >= 4
    assert store.read(0, 1).min() >= 10


def test_a_killed_command_is_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that ends early is reported with its reason, and nothing stays."""
    options = ["--size", "1MiB", "--limit", "64MiB", "--formats", "CSV long by time"]
    assert run_command(["formats", *options, "--workdir", str(tmp_path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["formats"]
    assert found["outcome"] != "done" or found["group_peak_bytes"] is None
    assert list(tmp_path.iterdir()) == []


def test_unknown_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="'ASCII' is unknown"):
        measure_formats(tmp_path, names=("ASCII",), file_bytes=1, limit_bytes=1)
