"""What the machine lacks is told as that, and not as damage of a file or a store."""

import errno
import os
import pickle
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import xarray as xr

from pgti.cli.main import run_command
from pgti.errors import DataError, PgtiError, StoreError, machine_fault
from pgti.ingestion import ingest
from pgti.ingestion.readings import reraise_read_errors
from pgti.store import SeriesStore

GOOD = np.arange(24.0).reshape(8, 3)
TIMES = pd.date_range("2012-03-01", periods=8, freq="5min", name="time")
FRAME = pd.DataFrame(GOOD, index=TIMES, columns=list("abc"))
LABELLED = xr.Dataset({"v": (("time", "sensor"), GOOD)}, coords={"time": TIMES})


def write_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["v"] = GOOD


FORMATS: dict[str, Callable[[Path], object]] = {
    "a.csv": FRAME.to_csv,
    "a.csv.gz": FRAME.to_csv,
    "a.npy": lambda path: np.save(path, GOOD),
    "a.npz": lambda path: np.savez(path, v=GOOD),
    "a.parquet": FRAME.to_parquet,
    "a.feather": lambda path: FRAME.reset_index().to_feather(path),
    "a.h5": write_hdf5,
    "p.h5": lambda path: FRAME.to_hdf(path, key="df"),
    "a.mat": lambda path: scipy.io.savemat(path, {"v": GOOD}),
    "a.nc": lambda path: LABELLED.to_netcdf(path, engine="h5netcdf"),
    "a.zarr": lambda path: LABELLED.to_zarr(path, zarr_format=2),
    "a.json": lambda path: path.write_text('{"edges": [[0, 1]], "FX": [[1, 2], [3, 4]]}'),
}
GRAPHS: dict[str, Callable[[Path], object]] = {
    "g.pkl": lambda path: path.write_bytes(pickle.dumps(np.eye(3))),
    "g.npz": lambda path: np.savez(path, adj=np.eye(3)),
    "g.csv": lambda path: path.write_text("from,to\na,b\nb,c\n"),
}


@contextmanager
def free_files(number: int) -> Iterator[None]:
    """Within it, so many files can be opened, and no more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    try:
        most = max(int(each.name) for each in Path("/proc/self/fd").iterdir()) + 30
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
        for _ in range(most + 1):
            try:
                held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        for _ in range(number):
            os.close(held.pop())
        yield
    finally:
        for each in held:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("name", [*FORMATS, *GRAPHS])
def test_too_many_open_files(tmp_path: Path, name: str) -> None:
    """Whichever file is one too many, the line says so, and the old store stays."""
    path, store = tmp_path / name, tmp_path / "store"
    (FORMATS | GRAPHS)[name](path)
    source, options = (FRAME, {"graph": path}) if name in GRAPHS else (path, {})
    fingerprint = ingest(source, store, **options).fingerprint  # and imports what it needs
    for number in range(12):
        with free_files(number):
            try:
                ingest(source, store, overwrite=True, **options)
                break
            except PgtiError as error:
                message = str(error)
        assert "Too many open files" in message
        assert not any(word in message for word in ("is damaged", "cannot be read as", "copy it"))
        assert SeriesStore.open(store).fingerprint == fingerprint
    else:
        pytest.fail("it needs more than a dozen files")


def test_a_store_is_not_damaged_by_a_lack_of_files(tmp_path: Path) -> None:
    store = tmp_path / "store"
    ingest(FRAME, store)
    opened = False
    for number in range(8):
        with free_files(number):
            try:
                SeriesStore.open(store)
                opened = True
                break
            except StoreError as error:
                message = str(error)
        assert "Too many open files" in message
        assert "is damaged" not in message
        assert "again" not in message
    assert opened


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError("Unable to allocate 8 EiB"), "Cannot allocate memory: end other programs"),
        (OSError(errno.EIO, "x"), os.strerror(errno.EIO)),
        (PermissionError(errno.EACCES, "x"), os.strerror(errno.EACCES)),
        (OSError(errno.ENFILE, "x"), "raise the limit"),
        (OSError("no HDF5 signature"), None),
        (OSError(errno.EINVAL, "x"), None),
        (ValueError("x"), None),
    ],
)
@pytest.mark.parametrize("is_hidden", [False, True])
def test_faults(error: Exception, reason: str | None, is_hidden: bool) -> None:
    """Also where a library raised its own error from that of the system."""

    def fail() -> None:
        try:
            raise error
        except Exception as first:
            if is_hidden:
                raise ValueError("it cannot be parsed") from first
            raise

    with pytest.raises(DataError) as refused, reraise_read_errors("a.x", "an X"):
        fail()
    if reason is None:
        assert machine_fault(error) is None
        assert "a.x cannot be read as an X: " in str(refused.value)
    else:
        assert reason in str(refused.value)
        assert "cannot be read as" not in str(refused.value)


def test_no_memory_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    ingest(FRAME, tmp_path / "store")
    monkeypatch.setattr("pgti.store.SeriesStore.verify", fail)
    assert run_command(["info", str(tmp_path / "store"), "--verify"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pgti: error: Cannot allocate memory: end other programs")
