"""Persistence on real speeds agrees with figures computed elsewhere."""

from pathlib import Path

import numpy as np
import pytest

from pgti.batching import WindowSource, build_loader
from pgti.forecasting import PersistenceForecaster, evaluate
from pgti.ingestion import IngestOptions, ingest
from pgti.store import Scaler, SeriesStore
from pgti.windows import WindowSpec

DATA = Path(__file__).parents[3] / "shared" / "data"
I5 = DATA / "pems_i5nb_oct2025.npz"
WEEK = DATA / "raw" / "metr-la-week" / "los_speed.csv"


def needs(path: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not path.exists(), reason=f"needs {path.name} in ../shared/data")


def persistence(store: SeriesStore) -> dict[str, dict[str, float | None]]:
    """Errors of persistence on the windows whose targets lie in the last fifth of the steps."""
    spec = WindowSpec()
    first = round(store.meta.num_steps * 0.8) - spec.input_steps
    scaler = Scaler.fit(store, range(first))
    source = WindowSource(store=store, spec=spec, scaler=scaler, target_indices=(0,))
    starts = np.arange(first, store.meta.num_steps - spec.span + 1)
    loader = build_loader(source, starts, 64)
    forecaster = PersistenceForecaster(scaler, (0,), spec.horizon)
    summary = evaluate({"persistence": forecaster}, loader)["persistence"].summary()
    return {"mae": summary["mae"], "rmse": summary["rmse"]}


@needs(I5)
def test_interstate_5(tmp_path: Path) -> None:
    """MAE and RMSE at 15, 30 and 60 minutes, to 0.05 mph."""
    options = IngestOptions(
        values=("speed_x10",),
        scale=(0.1,),
        channels=("speed",),
        edges=("edge_src", "edge_dst", "edge_miles"),
        start="2025-10-01T00:00",
        interval="5min",
    )
    ingest(I5, tmp_path / "store", options)
    errors = persistence(SeriesStore.open(tmp_path / "store"))
    expected = {"3": (1.43, 3.07), "6": (1.93, 4.35), "12": (2.66, 5.98)}
    for step, (mae, rmse) in expected.items():
        assert errors["mae"][step] == pytest.approx(mae, abs=0.05)
        assert errors["rmse"][step] == pytest.approx(rmse, abs=0.05)


@needs(WEEK)
def test_metr_la_week(tmp_path: Path) -> None:
    """MAE at 15, 30 and 60 minutes, to 0.05 mph; the windows at the end may differ by a few."""
    options = IngestOptions(start="2012-03-01T00:00", interval="5min", missing=(0.0,))
    ingest(WEEK, tmp_path / "store", options)
    errors = persistence(SeriesStore.open(tmp_path / "store"))
    for step, mae in {"3": 3.54, "6": 4.34, "12": 5.77}.items():
        assert errors["mae"][step] == pytest.approx(mae, abs=0.05)
