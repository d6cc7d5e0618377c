"""Memory of the whole process while other libraries read, whatever the size of a file."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROWS, NODES = 50_000, 20  # 8 MB as float64, eight times the budget; the long file has 32 MB
BOUND_BYTES = 8 << 20  # a third of what the long file has more

PROGRAM = """
import sys
from pathlib import Path
from pgti.ingestion import IngestOptions, open_readings

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

for path in sys.argv[1:]:
    rows = sum(len(chunk.values) for chunk in open_readings(path, IngestOptions()).chunks(1 << 20))
    print(rows, peak())
"""


def written(path: Path, num_rows: int) -> None:
    """Readings off any grid, in the format of the path's suffix."""
    values = np.random.default_rng(5).normal(60, 8, size=(num_rows, NODES))
    frame = pd.DataFrame(values, columns=[f"s{node}" for node in range(NODES)])
    if path.suffix == ".dyna":  # sensor after sensor, so that rows have to be put in order
        times = pd.Series(pd.date_range("2024", periods=num_rows // 10, freq="min").astype(str))
        with path.open("w") as file:
            file.write("time,sensor,value\n")
            for node in range(10 * NODES):
                file.write((times + f",{node},{node}.5\n").str.cat())
    elif path.suffix == ".csv":
        head, *lines = frame.iloc[:5000].round(2).to_csv(index=False).splitlines(keepends=True)
        path.write_text(head + "".join(lines) * (num_rows // 5000))
    elif path.suffix == ".nc":
        h5netcdf = pytest.importorskip("h5netcdf", reason="h5netcdf is not installed")
        pytest.importorskip("xarray", reason="xarray is not installed")
        with h5netcdf.File(path, "w") as file:
            file.dimensions = {"time": num_rows, "station": NODES}
            # Chunks that are long in time: every row needs all of them.
            file.create_variable(
                "speed", ("time", "station"), float, data=values, chunks=(num_rows // 4, 5)
            )
    elif path.suffix == ".h5":
        with pytest.importorskip("h5py", reason="h5py is not installed").File(path, "w") as file:
            file.create_dataset("speed", data=values, chunks=(1000, NODES), compression="lzf")
    else:
        pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        parquet = pytest.importorskip("pyarrow.parquet")
        # One group of rows, whose columns are to be read page by page.
        parquet.write_table(
            pa.Table.from_pandas(frame, preserve_index=False),
            path,
            use_dictionary=False,
            data_page_size=1 << 16,
        )


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("suffix", [".csv", ".dyna", ".h5", ".nc", ".parquet"])
def test_peak_does_not_grow_with_the_file(tmp_path: Path, suffix: str) -> None:
    """A file four times as long raises the peak of the process by less than the bound."""
    short, long = (tmp_path / f"{name}{suffix}" for name in ("short", "long"))
    written(short, ROWS)
    written(long, 4 * ROWS)
    done = subprocess.run(
        [sys.executable, "-B", "-c", PROGRAM, str(short), str(long)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    rows, peaks = zip(*(map(int, line.split()) for line in done.stdout.splitlines()), strict=True)
    share = 10 if suffix == ".dyna" else 1  # more sensors, fewer times
    assert rows == (ROWS // share, 4 * ROWS // share)
    assert peaks[1] - peaks[0] < BOUND_BYTES
