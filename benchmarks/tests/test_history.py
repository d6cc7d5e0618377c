"""`pgti-bench history`: three ways to the same batches, and what each reads and takes."""

import json
from pathlib import Path

import numpy as np
import pytest

from pgti.errors import ConfigError
from pgti_bench.app import run_command
from pgti_bench.history import measure_history
from pgti_bench.history_worker import HistoryHandlers
from pgti_bench.paper_datasets import DatasetShape
from pgti_bench.synthetic_stores import synthetic_store


@pytest.mark.slow
def test_ways_to_make_batches_with_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bits are compared; what is read follows from rows, and nothing stays."""
    sizes = ["--sensors", "3", "--steps", "90", "--history", "40", "--batch-size", "1"]
    counts = ["--batches", "2", "--rounds", "1"]
    assert run_command(["history", *sizes, *counts, "--workdir", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["windows"], result["history_steps"], result["compared"]) == (67, 28, 2)
    assert result["times_the_rows"] == 40 / 24
    index, decoded, whole = (
        result["contenders"][name] for name in ("index", "index, decoded once", "materialised")
    )
    assert whole["read_bytes"] == 4 * 3 * (28 + 24)
    assert whole["disk_bytes"] >= 67 * whole["read_bytes"]
    # A window has 24 rows of two bytes a reading, and at most 28 of history.
    assert 2 * 3 * 24 <= index["read_bytes"] == decoded["read_bytes"] <= 2 * 3 * 52
    assert all(each["seconds"]["runs"] == 1 for each in (index, decoded, whole))
    assert list(tmp_path.iterdir()) == []


def test_batches_and_materialised_windows_in_one_process(tmp_path: Path) -> None:
    """What the workers do; a changed reading of a file is seen."""
    shape = DatasetShape(
        name="s", title="", num_steps=90, num_nodes=3, num_features=1, window_steps=12
    )
    path = str(synthetic_store(shape, tmp_path).path)
    common = {"store": path, "history": ["40"], "batch_size": 2, "decoded": False}
    file = tmp_path / "windows.npy"
    handlers = HistoryHandlers()
    assert handlers.prepare(windows="", **common)["windows"] == 67
    assert handlers.materialize(windows=str(file))["bytes"] > 67 * 4 * 3 * 52
    assert 2 * 3 * 24 * 2 <= handlers.batches(count=3)["bytes"] <= 2 * 2 * 3 * 52
    handlers.prepare(windows=str(file), **common)
    assert handlers.batches(count=3)["bytes"] == 2 * 4 * 3 * 52
    assert handlers.compare(count=34) == {"differing": 0}
    windows = np.load(file)
    windows[5, 0, 0] += 1
    np.save(file, windows)
    handlers.prepare(windows=str(file), **common)
    assert handlers.compare(count=34) == {"differing": 1}


def test_a_history_of_no_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it must be longer"):
        measure_history(
            tmp_path, sensors=2, steps=50, history=("9",), batch_size=1, batches=1, rounds=1
        )
