"""PGT's files as users have them: missing, zipped, damaged, malicious; and wrong arguments."""

import errno
import inspect
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pgti.errors import ConfigError, DataError, StoreError
from pgti.interop import pgt
from pgti.interop.pgt import get_index_dataset

from .data_files import (
    CLASSES,
    NODES,
    STEPS,
    WRITERS,
    make_store,
    matrix,
    needs_pgt,
    pgt_loader,
    speeds,
    write_metr_la,
    write_pems,
    write_table,
)


def test_importing_it_imports_no_pyg() -> None:
    script = (
        "import sys, pgti.interop.pgt; "
        "sys.exit(any(name.startswith('torch_geometric') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=120)
    assert done.returncode == 0


@pytest.mark.parametrize("name", list(CLASSES.values()))
def test_constructors_read_nothing(name: str, tmp_path: Path) -> None:
    """Not even where there is nothing to read, and nothing is made there."""
    made = getattr(pgt, name)(raw_data_dir=tmp_path / "nowhere", index=True)
    with pytest.raises(DataError, match="needs the file"):
        made.get_index_dataset()
    assert not (tmp_path / "nowhere").exists()
    assert getattr(pgt, name)().raw_data_dir == Path.cwd() / "data"


@needs_pgt
@pytest.mark.parametrize("name", list(CLASSES))
@pytest.mark.parametrize("method", ["get_index_dataset", "get_dataset"])
def test_signatures_are_those_of_pgt(name: str, method: str, tmp_path: Path) -> None:
    """Names, order and defaults of the arguments; ours may have more behind them."""
    WRITERS[name](tmp_path)
    theirs = getattr(pgt_loader(name, tmp_path, index=method == "get_index_dataset"), method, None)
    ours = getattr(getattr(pgt, CLASSES[name]), method, None)
    if theirs is None:
        assert ours is None
        return
    expected = inspect.signature(theirs).parameters
    found = list(inspect.signature(ours).parameters.items())[1 : len(expected) + 1]
    assert [(key, each.default) for key, each in found] == [
        (key, each.default) for key, each in expected.items()
    ]


@pytest.mark.parametrize(
    ("name", "file", "fetched"),
    [
        ("METR-LA", "METR-LA.zip", "METR-LA"),
        ("PEMS-BAY", "PEMS-BAY.zip", "PEMS-BAY"),
        ("PeMS", "pems_cali_speed.h5", "PeMS"),
        ("PeMS-All-LA", "pems_AllLA_adj_mat.pkl", "PeMS-All-LA"),
        ("WindmillLarge", "windmill_output.json", "Windmill-Large"),
        ("Chickenpox", "chickenpox.json", "Chickenpox-Hungary"),
    ],
)
def test_a_missing_file_is_named_with_where_to_get_it(
    name: str, file: str, fetched: str, tmp_path: Path
) -> None:
    WRITERS[name](tmp_path)
    for written in tmp_path.iterdir():
        if written.name == file or file.endswith(".zip"):
            written.unlink()
    with pytest.raises(DataError) as caught:
        get_index_dataset(name, data_dir=tmp_path)
    message = str(caught.value)
    assert f"download {file} from https://" in message
    assert str(tmp_path) in message
    assert f"`pgti fetch {fetched}`" in message
    assert "\n" not in message


def zipped(directory: Path, *names: str) -> None:
    with zipfile.ZipFile(directory / "METR-LA.zip", "w") as archive:
        for name in names:
            archive.write(directory / name, f"METR-LA/{name}")
            (directory / name).unlink()


def test_an_archive_is_unpacked_beside_itself(tmp_path: Path) -> None:
    write_metr_la(tmp_path)
    expected = next(iter(get_index_dataset("METR-LA", data_dir=tmp_path)[0]))
    zipped(tmp_path, "node_values.npy", "adj_mat.npy")
    made = next(iter(get_index_dataset("METR-LA", data_dir=tmp_path)[0]))
    assert torch.equal(made[0], expected[0])
    assert {path.name for path in tmp_path.iterdir()} == {
        "METR-LA.zip", "node_values.npy", "adj_mat.npy",
    }  # fmt: skip


def test_another_archive_is_refused(tmp_path: Path) -> None:
    write_metr_la(tmp_path)
    zipped(tmp_path, "node_values.npy")
    (tmp_path / "adj_mat.npy").unlink()
    with pytest.raises(DataError, match=r"METR-LA.zip holds no adj_mat.npy"):
        get_index_dataset("METR-LA", data_dir=tmp_path)


def test_an_archive_that_cannot_be_unpacked_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_metr_la(tmp_path)
    zipped(tmp_path, "node_values.npy", "adj_mat.npy")

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("pgti.interop.pgt.data.data_sets.StagedDirectory", refused)
    with pytest.raises(DataError, match=r"Read-only file system.*: unpack METR-LA.zip elsewhere"):
        get_index_dataset("METR-LA", data_dir=tmp_path)


class Evil:
    """What a pickle can hold, and `pickle.load` runs."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch " + os.environ["EVIL"],)


def test_a_pickle_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pems(tmp_path)
    monkeypatch.setenv("EVIL", str(tmp_path / "evil"))
    (tmp_path / "pems_cali_adj_mat.pkl").write_bytes(pickle.dumps(([], {}, Evil())))
    with pytest.raises(DataError, match="is a pickle that wants"):
        get_index_dataset("PeMS", data_dir=tmp_path)
    assert not (tmp_path / "evil").exists()


def test_ids_that_are_in_another_order_are_believed(tmp_path: Path) -> None:
    """PGT joins the third column with the third row whatever they are."""
    write_table(tmp_path, "cali")
    expected = get_index_dataset("PeMS", data_dir=tmp_path)
    ids = [str(400000 + node) for node in range(NODES)]
    order = [2, 0, 4, 1, 3]
    shuffled = [ids[node] for node in order]
    content = (
        shuffled,
        dict(zip(shuffled, range(NODES), strict=True)),
        matrix()[np.ix_(order, order)],
    )
    (tmp_path / "pems_cali_adj_mat.pkl").write_bytes(pickle.dumps(content))
    made = get_index_dataset("PeMS", data_dir=tmp_path)
    assert torch.equal(made[3], expected[3])
    assert torch.equal(made[4], expected[4])
    as_pgt = get_index_dataset("PeMS", data_dir=tmp_path, pgt_compat=True)
    assert not torch.equal(as_pgt[3], expected[3])


def broken_values(directory: Path) -> None:
    path = directory / "node_values.npy"
    path.write_bytes(path.read_bytes()[:-9])


def flat_values(directory: Path) -> None:
    np.save(directory / "node_values.npy", speeds())


def small_matrix(directory: Path) -> None:
    np.save(directory / "adj_mat.npy", matrix()[1:, 1:])


def negative_matrix(directory: Path) -> None:
    np.save(directory / "adj_mat.npy", -matrix())


def objects(directory: Path) -> None:
    np.save(directory / "node_values.npy", np.array([{}, {}]), allow_pickle=True)


def other_json(directory: Path) -> None:
    (directory / "chickenpox.json").write_text(json.dumps({"edges": [], "y": []}))


def ragged_json(directory: Path) -> None:
    (directory / "chickenpox.json").write_text(json.dumps({"edges": [[0, 1]], "FX": [[1], [2, 3]]}))


def json_with_a_lost_edge(directory: Path) -> None:
    content = {"edges": [[0, 0], [0, 9]], "FX": [[1.0, 2.0]] * 20}
    (directory / "chickenpox.json").write_text(json.dumps(content))


def undated_table(directory: Path) -> None:
    pd.DataFrame(speeds()).to_hdf(directory / "pems_cali_speed.h5", key="df", mode="w")


def other_key(directory: Path) -> None:
    pd.DataFrame(speeds()).to_hdf(directory / "pems_cali_speed.h5", key="speed", mode="w")


def two_of_three(directory: Path) -> None:
    (directory / "pems_cali_adj_mat.pkl").write_bytes(pickle.dumps(([], matrix())))


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("METR-LA", broken_values, "node_values.npy is truncated"),
        ("METR-LA", flat_values, r"node_values.npy has shape \(90, 5\): it must be \[steps"),
        ("METR-LA", objects, "node_values.npy"),
        ("METR-LA", small_matrix, r"adj_mat.npy holds float32 \(4, 4\) and the readings are of 5"),
        ("METR-LA", negative_matrix, "the edge 0 -> 0 of adj_mat.npy has the weight -1"),
        ("Chickenpox", other_json, "has edges, y: the rule is edges, and rows called FX"),
        ("Chickenpox", ragged_json, "chickenpox.json cannot be read as JSON"),
        ("Chickenpox", json_with_a_lost_edge, r"edge 1 of chickenpox.json is \[0, 9\]"),
        ("PeMS", undated_table, "has no times: its index must be dates"),
        ("PeMS", other_key, "has no table 'df'"),
        ("PeMS", two_of_three, "holds a tuple: the rule is"),
    ],
)
def test_damaged_files(name: str, spoil: Any, message: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        get_index_dataset(name, data_dir=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lags": 0}, "lags is 0"),
        ({"lags": 50}, r"a series of 90 steps has 0 windows"),
        ({"lags": 50, "pgt_compat": True}, r"a series of 90 steps has 0 windows"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"horizon": 0}, "horizon is 0"),
        ({"allGPU": -2}, "allGPU is -2"),
        ({"seed": -1, "shuffle": True}, "seed is -1"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"ratio": (0.7, 0.3)}, "it must be three shares"),
        ({"ratio": (0.7, 0.2, 0.2)}, "add up to 1.1"),
        ({"ratio": (0.7, 0.9, 0.4), "pgt_compat": True}, "leave validation no less than nothing"),
        ({"ratio": (0.0, 0.5, 0.5)}, "no training window"),
        ({"ratio": (0.0, 0.5, 0.5), "pgt_compat": True}, "no training window"),
        ({"world_size": 4}, "world_size is 4 and ddp_rank is -1: give both"),
        ({"ddp_rank": 0}, "world_size is -1 and ddp_rank is 0: give both"),
        ({"ddp_rank": 4, "world_size": 4}, "ddp_rank is 4: it must be less than world_size 4"),
        ({"ddp_rank": 0, "world_size": 60}, "47 training windows for 60 ranks"),
        ({"fill": "nan"}, "fill is 'nan': it must be one of zero, mean"),
        ({"allGPU": 0, "dask_batching": True}, "allGPU is 0 and dask_batching is True"),
        ({"allGPU": 0, "num_workers": 2}, "allGPU is 0 and num_workers is 2"),
        ({"masks": True, "pgt_compat": True}, "pgt_compat is True, and PGT knows"),
        ({"horizon": 3, "pgt_compat": True}, "pgt_compat is True, and PGT knows"),
    ],
)
def test_refusals(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_metr_la(tmp_path)
    with pytest.raises(ConfigError, match=message):
        get_index_dataset("METR-LA", data_dir=tmp_path, **arguments)


def test_names_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_metr_la(tmp_path)
    assert len(get_index_dataset("metr_la", data_dir=tmp_path)) == 7
    store = make_store(tmp_path / "metr-la")
    monkeypatch.chdir(tmp_path)
    for path in (Path("metr-la"), "./metr-la"):
        assert torch.equal(get_index_dataset(path)[5], get_index_dataset(store)[5])
    with pytest.raises(ConfigError, match="'metr-la' is a data set, and a store in the working"):
        get_index_dataset("metr-la", data_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"'METRO' is neither a data set \(METR-LA, PEMS-BAY"):
        get_index_dataset("METRO")
    with pytest.raises(StoreError, match="is not a store"):
        get_index_dataset(Path("METR-LA"))
    with pytest.raises(StoreError, match="is not a store"):
        get_index_dataset(str(tmp_path))
    with pytest.raises(ConfigError, match="is not a data set of PGT: leave it out"):
        get_index_dataset(tmp_path, data_dir=tmp_path)
    with pytest.raises(ConfigError, match="which is a file: give the directory"):
        get_index_dataset("METR-LA", data_dir=tmp_path / "adj_mat.npy")


@pytest.mark.parametrize("compat", [False, True])
def test_a_series_that_memory_does_not_hold(
    compat: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_metr_la(tmp_path)
    monkeypatch.setattr(
        "pgti.interop.pgt.data.standardize.available_bytes", lambda _: 4 * STEPS * NODES * 2 - 1
    )
    with pytest.raises(ConfigError, match="pass dask_batching=True"):
        get_index_dataset("METR-LA", data_dir=tmp_path, pgt_compat=compat)
    get_index_dataset("METR-LA", data_dir=tmp_path, pgt_compat=compat, dask_batching=True)


def test_a_channel_without_a_training_reading(tmp_path: Path) -> None:
    write_metr_la(tmp_path)
    values = np.load(tmp_path / "node_values.npy")
    values[:80, :, 0] = 0
    np.save(tmp_path / "node_values.npy", values)
    with pytest.raises(DataError, match=r"channel 0 of node_values.npy has no observed reading"):
        get_index_dataset("METR-LA", data_dir=tmp_path)
