"""Formats whose library is not installed."""

import sys
from pathlib import Path

import numpy as np
import pytest

from pgti.errors import MissingExtraError
from pgti.ingestion import ingest


@pytest.mark.parametrize(
    ("library", "name", "content", "extra"),
    [
        ("h5py", "a.h5", b"content", "hdf5"),
        ("xarray", "a.nc", b"CDF\x01content", "netcdf"),
        ("h5netcdf", "a.nc", b"\x89HDFcontent", "netcdf"),
        ("zarr", "a.zarr/zarr.json", b"content", "zarr"),
        ("fsspec", "http://127.0.0.1:9/a.csv", b"", "remote"),
    ],
)
def test_missing_library_names_its_extra(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    library: str,
    name: str,
    content: bytes,
    extra: str,
) -> None:
    """The message says what to install; nothing else of ingest needs the library."""
    monkeypatch.setitem(sys.modules, library, None)  # importing it now fails
    source: Path | str = name
    if content:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
        source = tmp_path / name.partition("/")[0]
    with pytest.raises(MissingExtraError, match=rf"{library} .*pgti\[{extra}\]"):
        ingest(source, tmp_path / "s")
    ingest(np.ones((3, 2)), tmp_path / "s")
