"""Sources by URL: copies of files, Zarr in place, and no secret in any message."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pgti.cli.main import run_command
from pgti.errors import DataError, MissingExtraError
from pgti.ingestion import append, ingest
from pgti.ingestion.remote import as_url, is_zarr_url, name_of
from pgti.store import SeriesStore

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
pytest.importorskip("aiohttp", reason="aiohttp is not installed")

TIMES = pd.date_range("2024-01-01", periods=8, freq="h")
VALUES = np.arange(16.0).reshape(8, 2) / 4


def frame(first: int = 0) -> pd.DataFrame:
    """Four rows of two sensors."""
    return pd.DataFrame(VALUES, TIMES, columns=["a", "b"]).iloc[first : first + 4]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """The files of a directory by HTTP, on this machine alone."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=directory)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def hidden_files(directory: Path) -> list[str]:
    """Temporary files beside a store."""
    return [each.name for each in directory.iterdir() if each.name.startswith(".")]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_files_by_http(tmp_path: Path, suffix: str) -> None:
    """A file of any format is copied beside the store and removed; newer ones are appended."""
    for name, first in (("old", 0), ("new", 4)):
        path = tmp_path / "there" / f"{name}{suffix}"
        path.parent.mkdir(exist_ok=True)
        frame(first).to_csv(path) if suffix == ".csv" else frame(first).to_parquet(path)
    (tmp_path / "here").mkdir()
    with served(tmp_path / "there") as url:
        store = ingest(f"{url}/old{suffix}?sig=SECRET", tmp_path / "here/s")
        grown = append(store, f"{url}/new{suffix}")
        both = ingest([f"{url}/new{suffix}", f"{url}/old{suffix}"], tmp_path / "here/t")
    np.testing.assert_array_equal(grown.read(0, 8)[..., 0], VALUES)
    np.testing.assert_array_equal(both.read(0, 8)[..., 0], VALUES)
    assert hidden_files(tmp_path / "here") == []
    assert "SECRET" not in (tmp_path / "here/s/meta.json").read_text()


def test_command_line(tmp_path: Path) -> None:
    """The command line takes a URL as it takes a path."""
    with fsspec.open("memory://cli/a.csv", "w") as file:
        file.write(frame().to_csv())
    assert run_command(["ingest", "memory://cli/a.csv", "--out", str(tmp_path / "s")]) == 0
    assert SeriesStore.open(tmp_path / "s").meta.num_steps == 4


def test_zarr_in_place(tmp_path: Path) -> None:
    """Zarr stores are read where they are, by HTTP with consolidated metadata."""
    xr = pytest.importorskip("xarray", reason="xarray is not installed")
    pytest.importorskip("zarr", reason="zarr is not installed")
    array = xr.DataArray(VALUES, dims=("time", "node"), coords={"time": TIMES}, name="speed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array.to_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=2, consolidated=True)
        with served(tmp_path) as url:
            store = ingest(f"{url}/a.zarr", tmp_path / "s")
    np.testing.assert_array_equal(store.read(0, 8)[..., 0], VALUES)
    assert store.meta.start == "2024-01-01T00:00:00"


def test_netcdf_by_url(tmp_path: Path) -> None:
    """NetCDF is copied, as every file that is not Zarr."""
    xr = pytest.importorskip("xarray", reason="xarray is not installed")
    pytest.importorskip("h5netcdf", reason="h5netcdf is not installed")
    array = xr.DataArray(VALUES, dims=("time", "node"), coords={"time": TIMES}, name="speed")
    array.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    fsspec.filesystem("memory").pipe("/nc/a.nc", (tmp_path / "a.nc").read_bytes())
    store = ingest("memory://nc/a.nc", tmp_path / "s")
    np.testing.assert_array_equal(store.read(0, 8)[..., 0], VALUES)


@pytest.mark.parametrize("name", ["no.csv", "no.zarr"])
def test_what_is_not_there(tmp_path: Path, name: str) -> None:
    """A message names the file, and neither user, password nor signature of its URL."""
    with served(tmp_path) as url:
        secret = url.replace("//", "//user:PASSWORD@") + f"/{name}?sig=SECRET"
        with pytest.raises(DataError, match=rf"^{name} ") as caught:
            ingest(secret, tmp_path / "s")
    shown = str(caught.value)
    assert not {"SECRET", "PASSWORD", "http"} & {
        w for w in ("SECRET", "PASSWORD", "http") if w in shown
    }
    assert caught.value.__cause__ is None
    assert hidden_files(tmp_path) == []


def test_server_that_is_not_there(tmp_path: Path) -> None:
    """A connection that fails is one line."""
    with served(tmp_path) as url:
        pass
    with pytest.raises(DataError, match=r"^a.csv (cannot be read|does not exist)"):
        ingest(f"{url}/a.csv", tmp_path / "s")


def test_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library of a protocol that is not installed is named with its extra."""

    def fail(*_: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "open", fail)
    with pytest.raises(MissingExtraError, match=r"s3fs .*pgti\[remote\]"):
        ingest("s3://bucket/a.csv", tmp_path / "s")


def test_urls_and_paths() -> None:
    """Paths shorten URLs, and drives of Windows and relative paths are none."""
    assert as_url(Path("s3://bucket/a.zarr")) == "s3://bucket/a.zarr"
    assert as_url("simplecache::s3://b/x.csv") == "simplecache::s3://b/x.csv"
    assert [as_url(each) for each in ("C:/a.csv", "a.csv", "file:///a.csv", 3)] == [None] * 4
    assert name_of("https://u:p@host/a/b.nc?x=/y#z") == "b.nc"
    assert name_of("https://u:p@host") == "host"
    assert is_zarr_url("gs://b/era5.zarr/")
    assert not is_zarr_url("gs://b/era5.zarr.zip")
