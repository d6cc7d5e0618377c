"""Signals of PGT become stores, stores its snapshots, and its loaders are taken over."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import pgti
from pgti.errors import ConfigError, DataError, MissingExtraError
from pgti.interop import pgt
from pgti.interop.pgt import IndexDataset, collate_windows, from_loader, snapshots, to_store
from pgti.interop.pgt.data.standardize import LazySeries

from .data_files import (
    CLASSES,
    NODES,
    STEPS,
    WRITERS,
    import_pgt,
    make_store,
    matrix,
    needs_pgt,
    pgt_loader,
    speeds,
    times_of_day,
    write_metr_la,
)

DATA = Path(__file__).parents[4] / "shared" / "data"
CHICKENPOX = DATA / "raw" / "chickenpox.json"

SNAPSHOTS = ("METR-LA", "PEMS-BAY", "WindmillLarge", "Chickenpox")


def assert_same_snapshots(ours: Any, theirs: Any) -> None:
    assert ours.snapshot_count == theirs.snapshot_count
    for mine, expected in zip(ours, theirs, strict=True):
        for key in ("x", "y", "edge_index", "edge_attr"):
            torch.testing.assert_close(mine[key], expected[key], rtol=0, atol=0)


def random_signal(snapshots: int = 9, **changed: Any) -> Any:
    """What PGT's StaticGraphTemporalSignal has, of 3 steps and 2 features each."""
    series = np.random.default_rng(2).normal(size=(snapshots + 6, NODES, 2)).astype(np.float32)
    parts: dict[str, Any] = {
        "edge_index": np.stack(np.nonzero(matrix())),
        "edge_weight": matrix()[np.nonzero(matrix())],
        "features": [series[place : place + 3].transpose(1, 2, 0) for place in range(snapshots)],
        "targets": [series[place + 3 : place + 7, :, 1].T for place in range(snapshots)],
    }
    return SimpleNamespace(**(parts | changed), series=series)


# Snapshots


@needs_pgt
@pytest.mark.parametrize("name", SNAPSHOTS)
def test_compatible_snapshots_are_those_of_pgt(name: str, tmp_path: Path) -> None:
    """All of them, through PGT's own split; the defaults of each loader."""
    WRITERS[name](tmp_path)
    theirs = pgt_loader(name, tmp_path, index=False).get_dataset()
    ours = getattr(pgt, CLASSES[name])(raw_data_dir=tmp_path).get_dataset(pgt_compat=True)
    assert_same_snapshots(ours, theirs)
    split = import_pgt("signal").temporal_signal_split
    for mine, expected in zip(split(ours, 0.7), split(theirs, 0.7), strict=True):
        assert_same_snapshots(mine, expected)
    np.testing.assert_array_equal(ours.edge_index, theirs.edge_index)
    assert len(ours.features) == len(theirs.features)
    np.testing.assert_allclose(ours.features[3], theirs.features[3], rtol=1e-6)
    np.testing.assert_allclose(ours.targets[-1], theirs.targets[-1], rtol=1e-6)
    assert len(ours.targets[2:5]) == 3


@needs_pgt
def test_snapshots_of_other_lengths(tmp_path: Path) -> None:
    write_metr_la(tmp_path)
    theirs = pgt_loader("METR-LA", tmp_path, index=False).get_dataset(7, 2)
    ours = pgt.METRLADatasetLoader(tmp_path).get_dataset(7, 2, pgt_compat=True)
    assert_same_snapshots(ours, theirs)


@pytest.mark.parametrize("name", ["METR-LA", "PEMS-BAY", "WindmillLarge"])
def test_statistics_are_those_of_training_snapshots(name: str, tmp_path: Path) -> None:
    """Of the inputs of the first four fifths; of every windmill; and they bring readings back."""
    WRITERS[name](tmp_path)
    loader = getattr(pgt, CLASSES[name])(raw_data_dir=tmp_path)
    made, whole = loader.get_dataset(6), loader.get_dataset(6, train_ratio=None)
    assert (whole.means, whole.stds) == (None, None)
    num_train = int(0.8 * made.snapshot_count)
    means, stds = made.means.numpy(), made.stds.numpy()
    if name == "WindmillLarge":
        content = json.loads((tmp_path / "windmill_output.json").read_text())
        rows = np.array(content["block"])[: num_train + 5]
        np.testing.assert_allclose(means[:, 0], rows.mean(axis=0), rtol=1e-4)
        np.testing.assert_allclose(stds[:, 0], rows.std(axis=0), rtol=1e-3)
    else:
        rows = speeds()[: num_train + 5]
        assert means.tolist() == [pytest.approx(rows[rows != 0].mean(), rel=1e-4), 0]
        assert stds.tolist() == [pytest.approx(rows[rows != 0].std(), rel=1e-3), 1]
        means, stds = means[:, None], stds[:, None]
    back = made.features[3] * stds + means
    np.testing.assert_allclose(back, whole.features[3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lazy", [False, True])
def test_snapshots_of_a_store(lazy: bool, tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")
    store = make_store(tmp_path / "store", channels=2)
    read = np.nan_to_num(store.read(0, STEPS))
    given: dict[str, Any] = {"train_ratio": None, "lazy": lazy}
    both = snapshots(store, 5, 3, **given)
    assert both.snapshot_count == len(both) == STEPS - 7
    snapshot = both[4]
    np.testing.assert_array_equal(snapshot.x[:, :2], read[4:9].transpose(1, 2, 0))
    np.testing.assert_allclose(snapshot.x[0, 2], times_of_day()[4:9], rtol=1e-6)
    np.testing.assert_array_equal(snapshot.y, read[9:12].transpose(1, 2, 0))
    np.testing.assert_array_equal(snapshot.edge_index, store.graph.edge_index)
    np.testing.assert_array_equal(snapshot.edge_attr, store.graph.edge_weight)
    one = snapshots(store.path, 5, 3, targets=("c1",), **given)
    np.testing.assert_array_equal(one[-1].y, read[-3:, :, 1].T)
    alone = snapshots(make_store(tmp_path / "alone"), 5, **given)
    np.testing.assert_array_equal(alone[4].x, read[4:9, :, 0].T)
    np.testing.assert_array_equal(alone[4].y, read[9, :, 0])
    standardised = snapshots(store, 5, 3, lazy=lazy)
    back = standardised[4].x * standardised.stds[:, None] + standardised.means[:, None]
    np.testing.assert_allclose(back, snapshot.x, rtol=1e-5, atol=1e-4)
    assert isinstance(standardised._series, LazySeries if lazy else np.ndarray)


def test_snapshots_are_views(tmp_path: Path) -> None:
    """Of one series and one edge index, however many are kept."""
    pytest.importorskip("torch_geometric")
    made = snapshots(make_store(tmp_path / "store"), 4, 2)
    kept = list(made)
    base = kept[0].x.data_ptr()
    row_bytes = NODES * 2 * 4
    for place, snapshot in enumerate(kept):
        assert snapshot.x.data_ptr() == base + place * row_bytes
        assert snapshot.y.data_ptr() == base + (place + 4) * row_bytes
        assert snapshot.edge_index.data_ptr() == kept[0].edge_index.data_ptr()


def test_without_pyg_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = snapshots(make_store(tmp_path / "store"), 4, 2)
    monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pgti\[pgt\]'"):
        made[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lags": 0, "horizon": 1}, "input_steps is 0"),
        ({"lags": 4, "horizon": 0}, "horizon is 0"),
        ({"lags": 4}, "has 2 channels: without horizon x is"),
        ({"lags": 90, "horizon": 1}, "there are 0 snapshots: none is left"),
        ({"lags": 90, "horizon": 1, "train_ratio": None}, "has 90 steps, and a snapshot takes 91"),
        ({"lags": 4, "horizon": 1, "train_ratio": 1.5}, "train_ratio is 1.5"),
        ({"lags": 4, "horizon": 1, "train_ratio": 0.001}, "none is left for training"),
    ],
)
def test_refused_snapshots(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        snapshots(make_store(tmp_path / "store", channels=2), **arguments)


# Signals as stores


@needs_pgt
@pytest.mark.parametrize("name", ["METR-LA", "PEMS-BAY"])
def test_the_signals_of_pgt_become_the_readings_again(name: str, tmp_path: Path) -> None:
    """Also those that the last snapshot alone has as targets; a 0 is missing again."""
    WRITERS[name](tmp_path)
    loader = pgt_loader(name, tmp_path, index=False)
    *_, means, stds = pgt_loader(name, tmp_path).get_index_dataset()
    options = pgti.IngestOptions(
        channels=("speed", "clock"), missing=(0.0,), start="2012-03-01T20:50", interval="5min"
    )
    to_store(loader.get_dataset(7, 3), tmp_path / "store", options, means=means, stds=stds)
    store = pgti.SeriesStore.open(tmp_path / "store")
    assert store.meta.channels == ("speed", "clock")
    read = store.read(0, STEPS)
    expected = np.where(speeds() == 0, np.nan, speeds())
    np.testing.assert_allclose(read[..., 0], expected, rtol=1e-5)
    clock = np.where(times_of_day() == 0, np.nan, times_of_day())
    known = STEPS if name == "PEMS-BAY" else STEPS - 3
    np.testing.assert_allclose(read[:known, 2, 1], clock[:known], rtol=1e-4, atol=1e-6)
    assert np.isnan(read[known:, :, 1]).all()
    np.testing.assert_array_equal(store.graph.adjacency.toarray(), matrix())


@needs_pgt
@pytest.mark.skipif(not CHICKENPOX.exists(), reason="needs chickenpox.json in ../shared/data/raw")
def test_the_real_chickenpox_as_a_store(tmp_path: Path) -> None:
    (tmp_path / "chickenpox.json").write_bytes(CHICKENPOX.read_bytes())
    signal = pgt_loader("Chickenpox", tmp_path, index=False).get_dataset(lags=4)
    content = json.loads(CHICKENPOX.read_text())
    to_store(signal, tmp_path / "store", node_ids=tuple(content["node_ids"]))
    store = pgti.SeriesStore.open(tmp_path / "store")
    assert store.meta.node_ids == tuple(content["node_ids"])
    np.testing.assert_array_equal(
        store.read(0, 521)[..., 0], np.asarray(content["FX"]).astype(np.float32)
    )
    assert sorted(store.graph.edge_index.T.tolist()) == sorted(content["edges"])
    again = snapshots(store, 4, train_ratio=None)
    for mine, expected in zip(again[:50], signal[:50], strict=True):
        assert torch.equal(mine.x, expected.x)
        assert torch.equal(mine.y, expected.y)


def test_a_store_becomes_a_signal_and_a_store_again(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    to_store(snapshots(store, 5, train_ratio=None), tmp_path / "again")
    again = pgti.SeriesStore.open(tmp_path / "again")
    np.testing.assert_array_equal(again.read(0, STEPS), np.nan_to_num(store.read(0, STEPS)))
    assert (again.graph.adjacency != store.graph.adjacency).nnz == 0


def test_targets_of_another_feature_than_the_first(tmp_path: Path) -> None:
    signal = random_signal()
    to_store(signal, tmp_path / "store")
    read = pgti.SeriesStore.open(tmp_path / "store").read(0, 15)
    np.testing.assert_array_equal(read[:11], signal.series[:11])
    np.testing.assert_array_equal(read[11:, :, 1], signal.series[11:, :, 1])
    assert np.isnan(read[11:, :, 0]).all()


def test_whole_numbers_have_missing_rows_too(tmp_path: Path) -> None:
    series = np.arange(15 * NODES * 2).reshape(15, NODES, 2)
    signal = random_signal(
        features=[series[place : place + 3].transpose(1, 2, 0) for place in range(9)],
        targets=[series[place + 3 : place + 7, :, 1].T for place in range(9)],
    )
    to_store(signal, tmp_path / "store")
    read = pgti.SeriesStore.open(tmp_path / "store").read(0, 15)
    np.testing.assert_array_equal(read[:11], series[:11])
    assert np.isnan(read[11:, :, 0]).all()


@needs_pgt
def test_the_statistics_of_each_sensor(tmp_path: Path) -> None:
    """As a column: in PGT's own shape, [N], they are refused."""
    WRITERS["WindmillLarge"](tmp_path)
    signal = pgt_loader("WindmillLarge", tmp_path, index=False).get_dataset()
    *_, means, stds = pgt_loader("WindmillLarge", tmp_path).get_index_dataset()
    with pytest.raises(ConfigError, match=r"means has shape \(5,\)"):
        to_store(signal, tmp_path / "store", means=means, stds=stds)
    means, stds = np.asarray(means).reshape(-1, 1), np.asarray(stds).reshape(-1, 1)
    to_store(signal, tmp_path / "store", means=means, stds=stds)
    raw = pgti.SeriesStore.open(tmp_path / "store").read(0, 8)[..., 0]
    expected = signal.features[0] * stds + means
    np.testing.assert_allclose(raw, np.transpose(expected), rtol=1e-4, atol=1e-5)


@needs_pgt
def test_a_dynamic_signal_whose_graph_stays(tmp_path: Path) -> None:
    static = random_signal()
    dynamic = import_pgt("signal").DynamicGraphTemporalSignal
    indices, weights = [static.edge_index.copy() for _ in range(9)], [static.edge_weight] * 9
    to_store(dynamic(indices, weights, static.features, static.targets), tmp_path / "store")
    store = pgti.SeriesStore.open(tmp_path / "store")
    np.testing.assert_array_equal(store.graph.adjacency.toarray(), matrix())
    indices[6] = indices[6][::-1]
    with pytest.raises(DataError, match="edge_indices of snapshot 6 are not those of snapshot 0"):
        to_store(dynamic(indices, weights, static.features, static.targets), tmp_path / "other")
    indices[6], weights[4] = indices[0], 2 * weights[4]
    with pytest.raises(DataError, match="edge_weights of snapshot 4 are not those of snapshot 0"):
        to_store(dynamic(indices, weights, static.features, static.targets), tmp_path / "other")


def test_snapshots_that_are_steps(tmp_path: Path) -> None:
    """Features and targets of their own become channels."""
    rng = np.random.default_rng(4)
    features, targets = rng.normal(size=(8, NODES, 2)), rng.normal(size=(8, NODES))
    signal = random_signal(features=list(features), targets=list(targets))
    to_store(signal, tmp_path / "store", layout="steps")
    store = pgti.SeriesStore.open(tmp_path / "store")
    assert store.meta.channels == ("feature0", "feature1", "target")
    expected = np.concatenate((features, targets[..., None]), axis=2).astype(np.float32)
    np.testing.assert_array_equal(store.read(0, 8), expected)
    signal = random_signal(features=list(features), targets=[None] * 8, edge_index=None)
    to_store(signal, tmp_path / "bare", layout="steps")
    bare = pgti.SeriesStore.open(tmp_path / "bare")
    assert (bare.meta.channels, bare.graph.num_edges) == (("feature0", "feature1"), 0)


def moved(place: int) -> list[np.ndarray]:
    features = [each.copy() for each in random_signal().features]
    features[place][0, 0, 0] += 1
    return features


@pytest.mark.parametrize(
    ("changed", "arguments", "message"),
    [
        ({"features": []}, {}, "without features cannot be stored"),
        ({"features": None}, {}, "without features cannot be stored"),
        ({"targets": [None] * 9}, {}, "snapshot 0 of the signal has no targets"),
        ({"features": moved(5)}, {}, 'snapshot 5 are not those of snapshot 4 .* layout="steps"'),
        (
            {"features": [*random_signal().features[:8], np.zeros((NODES, 3))]},
            {},
            r"snapshot 8 of the signal has features of shape \(5, 3\)",
        ),
        ({"features": [np.zeros(NODES)] * 9}, {}, r"features have shape \(5,\)"),
        ({"targets": [np.zeros((NODES, 4))] * 9}, {}, "targets are not the steps that follow"),
        ({"targets": [np.zeros((NODES, 3, 4))] * 9}, {}, r"targets have shape \(5, 3, 4\)"),
        (
            {"features": [np.zeros(NODES)] * 2, "targets": [np.zeros(NODES), np.zeros((NODES, 2))]},
            {"layout": "steps"},
            r"snapshot 1 of the signal has targets of shape \(5, 2\)",
        ),
        (
            {"features": [np.zeros(NODES)] * 2, "targets": [np.zeros(NODES), None]},
            {"layout": "steps"},
            "snapshot 1 of the signal has no targets",
        ),
        ({"edge_index": np.zeros(5, int)}, {}, r"edge index has shape \(5,\)"),
        (
            {},
            {"layout": "steps"},
            r"features have shape \(5, 2, 3\): the rule is \[N\] or \[N, F\]",
        ),
    ],
)
def test_signals_that_are_no_series(
    changed: dict[str, Any], arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        to_store(random_signal(**changed), tmp_path / "store", **arguments)
    assert not (tmp_path / "store").exists()


def test_refused_arguments(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only one of means and stds"):
        to_store(random_signal(), tmp_path / "store", means=[1, 2])
    with pytest.raises(ConfigError, match="layout is 'rows'"):
        to_store(random_signal(), tmp_path / "store", layout="rows")  # type: ignore[arg-type]
    for name in ("means", "stds"):
        statistics: Any = {"means": [0.0], "stds": [1.0], name: np.ones(NODES)}
        with pytest.raises(
            ConfigError, match=rf"{name} has shape \(5,\) .* \[{NODES}, 1\] for sensors"
        ):
            to_store(random_signal(), tmp_path / "store", **statistics)
    assert not (tmp_path / "store").exists()


# Loaders taken over


@needs_pgt
def test_a_loader_of_pgt_is_taken_over_without_a_copy(tmp_path: Path) -> None:
    write_metr_la(tmp_path)
    theirs = pgt_loader("METR-LA", tmp_path).get_index_dataset(batch_size=9)[0]
    ours = from_loader(theirs)
    assert isinstance(ours, IndexDataset)
    assert ours.data is theirs.dataset.data
    assert ours.indices is theirs.dataset.indices
    assert ours.horizon == 12
    mine = DataLoader(ours, batch_size=9, collate_fn=collate_windows)
    for batch, expected in zip(mine, theirs, strict=True):
        assert torch.equal(batch[0], expected[0])
        assert torch.equal(batch[1], expected[1])
    assert from_loader(mine).data is ours.data
    assert from_loader(ours).data is ours.data


def test_a_loader_of_something_else() -> None:
    loader: Any = DataLoader([1, 2, 3])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a list has no indices"):
        from_loader(loader)
