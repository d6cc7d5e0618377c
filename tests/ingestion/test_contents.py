"""What git and downloads leave in place of a file is named as such, for every format."""

from pathlib import Path

import numpy as np
import pytest

from pgti import ingest
from pgti.errors import DataError

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:8c48db8ce89c8730b7e4013a611bf383a65e5bddaa361b46cb1c9d8f6a417424\n"
    "size 41987193\n"
)
SUFFIXES = (".csv", ".csv.gz", ".npy", ".npz", ".h5", ".json", ".parquet")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "is a Git LFS pointer in place of the file of 41,987,193 bytes: get it with"),
        ("\n<!DOCTYPE html>\n<html><head>", "is a web page"),
        ("<HTML lang='en'>", "is a web page"),
        ("<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC '-'>", "is a web page"),
        ("404: Not Found", "holds '404: Not Found', the answer of a server"),
        ("", "is empty"),
    ],
)
def test_what_is_not_the_file(tmp_path: Path, suffix: str, content: str, message: str) -> None:
    file = tmp_path / f"readings{suffix}"
    file.write_text(content)
    with pytest.raises(DataError, match=f"^{file.name} {message}"):
        ingest(file, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("suffix", [".csv", ".pkl", ".npz", ".npy"])
def test_a_graph_that_is_a_pointer(tmp_path: Path, suffix: str) -> None:
    graph = tmp_path / f"graph{suffix}"
    graph.write_text(POINTER)
    with pytest.raises(DataError, match=f"{graph.name} is a Git LFS pointer"):
        ingest(np.ones((3, 2)), tmp_path / "store", graph=graph)


def test_markup_in_a_table_is_no_page(tmp_path: Path) -> None:
    """A sensor may have any name."""
    file = tmp_path / "readings.csv"
    file.write_text("<htmlx>,b\n1,2.5\n3,4\n")
    assert ingest(file, tmp_path / "store").meta.node_ids == ("<htmlx>", "b")


def test_newer_readings_that_are_a_pointer(tmp_path: Path) -> None:
    store = ingest(np.ones((3, 2)), tmp_path / "store", start="2024-01-01", interval="1h")
    newer = tmp_path / "newer.csv"
    newer.write_text(POINTER)
    with pytest.raises(DataError, match=r"newer.csv is a Git LFS pointer"):
        store.append(newer)
