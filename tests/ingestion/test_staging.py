"""Readings put in any order leave as consecutive rows, in bounded memory."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgti.errors import DataError, StoreError
from pgti.ingestion.options import Duplicates
from pgti.ingestion.scratch import scratch_beside
from pgti.ingestion.staging import RowStage

SMALL_BUDGET = 600  # bytes: bands of few rows, and files


@st.composite
def shapes_and_puts(draw: st.DrawFn) -> tuple[tuple[int, int, int], list[tuple]]:
    """A shape [T, N, C], and cells and blocks in any order, repeated ones among them."""
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 6)), draw(st.integers(1, 3)))
    values = st.sampled_from([np.nan, 0.0, 1.0, 2.0, 3.0])
    puts: list[tuple] = []
    for _ in range(draw(st.integers(0, 8))):
        if draw(st.booleans()):
            size = draw(st.integers(0, 12))
            cells = st.tuples(st.integers(0, shape[0] - 1), st.integers(0, shape[1] - 1))
            places = draw(st.lists(cells, min_size=size, max_size=size))
            rows, nodes = np.array(places, dtype=int).reshape(-1, 2).T
            content = draw(st.lists(values, min_size=size * shape[2], max_size=size * shape[2]))
            puts.append((rows, nodes, np.array(content).reshape(size, shape[2])))
        else:
            row, node = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
            num_rows = draw(st.integers(1, shape[0] - row))
            num_nodes = draw(st.integers(1, shape[1] - node))
            count = num_rows * num_nodes * shape[2]
            content = draw(st.lists(values, min_size=count, max_size=count))
            puts.append((row, node, np.array(content).reshape(num_rows, num_nodes, shape[2])))
    return shape, puts


def all_readings(puts: list[tuple]) -> dict[tuple, list[float]]:
    """What is put at each place, in order."""
    found: dict[tuple, list[float]] = {}
    for rows, nodes, values in puts:
        for place in np.ndindex(values.shape[:-1]):
            if isinstance(rows, int):
                row, node = rows + place[0], nodes + place[1]
            else:
                row, node = int(rows[place]), int(nodes[place])
            for channel, value in enumerate(values[place]):
                if not np.isnan(value):
                    found.setdefault((row, node, channel), []).append(float(value))
    return found


def put_all(stage: RowStage, puts: list[tuple]) -> None:
    """Put cells and blocks."""
    for rows, nodes, values in puts:
        if isinstance(rows, int):
            stage.put_block(rows, nodes, values)
        else:
            stage.put(rows, nodes, values)


@settings(max_examples=150, deadline=None)
@given(shapes_and_puts(), st.sampled_from(["first", "last", "mean"]), st.booleans())
def test_rows_equal_a_dense_array(
    case: tuple[tuple[int, int, int], list[tuple]], rule: Duplicates, is_small: bool
) -> None:
    shape, puts = case
    wanted = np.full(shape, np.nan)
    choose = {"first": lambda each: each[0], "last": lambda each: each[-1], "mean": np.mean}[rule]
    found = all_readings(puts)
    for place, readings in found.items():
        wanted[place] = choose(readings)
    budget = SMALL_BUDGET if is_small else 1 << 20
    with RowStage(*shape, budget_bytes=budget, duplicates=rule) as stage:
        put_all(stage, puts)
        chunks = list(stage.chunks())
        num_repeated = stage.num_repeated
    np.testing.assert_array_equal(np.concatenate(chunks), wanted)
    assert num_repeated == sum(len(each) - 1 for each in found.values())
    assert not is_small or len(chunks) == 1 or chunks[0].nbytes <= SMALL_BUDGET


@settings(max_examples=150, deadline=None)
@given(shapes_and_puts())
def test_readings_that_differ_are_refused_if_they_may_not(
    case: tuple[tuple[int, int, int], list[tuple]],
) -> None:
    shape, puts = case
    found = all_readings(puts)
    differ = {place: each for place, each in found.items() if len(set(each)) > 1}
    seen = []

    def conflict(row: int, node: int, channel: int, old: float, new: float) -> DataError:
        seen.append(((row, node, channel), {old, new}))
        return DataError("two readings")

    with RowStage(
        *shape, budget_bytes=SMALL_BUDGET, duplicates="error", conflict=conflict
    ) as stage:
        put_all(stage, puts)
        if not differ:
            dense = np.concatenate(list(stage.chunks()))
            assert {place: dense[place] for place in found} == {
                place: each[0] for place, each in found.items()
            }
            return
        with pytest.raises(DataError, match="two readings"):
            list(stage.chunks())
    ((place, pair),) = seen
    assert len(pair) == 2
    assert pair <= set(differ[place])


def test_a_stage_names_the_row_the_sensor_and_both_readings() -> None:
    with RowStage(3, 2, budget_bytes=1 << 20, duplicates="error") as stage:
        stage.put(np.array([2, 2]), np.array([1, 1]), np.array([[1.5], [2.0]]))
        with pytest.raises(DataError, match=r"row 2 of sensor 1 has the readings 1.5 and 2"):
            list(stage.chunks())


def test_rows_that_are_complete_leave_early_and_nothing_is_written(tmp_path: Path) -> None:
    values = np.arange(4000.0).reshape(1000, 4, 1)
    taken: list[np.ndarray] = []
    with scratch_beside(tmp_path / "store"), RowStage(1000, 4, budget_bytes=4096) as stage:
        for row in range(0, 1000, 10):
            stage.put_block(row, 0, values[row : row + 10])
            taken += stage.chunks(before=row + 10)
            assert not list(tmp_path.iterdir())
        assert sum(map(len, taken)) > 900
        taken += stage.chunks()
    np.testing.assert_array_equal(np.concatenate(taken), values)


@pytest.mark.parametrize("ends", ["complete", "error", "interrupt"])
def test_its_files_are_removed_however_it_ends(tmp_path: Path, ends: str) -> None:
    errors = {"error": ValueError, "interrupt": KeyboardInterrupt}

    def work() -> None:
        with (
            scratch_beside(tmp_path / "store"),
            RowStage(500, 4, budget_bytes=SMALL_BUDGET) as stage,
        ):
            for node in range(4):
                stage.put_block(0, node, np.ones((500, 1, 1)))
            assert list(tmp_path.rglob("*.part"))
            if ends in errors:
                raise errors[ends]
            assert sum(chunk.sum() for chunk in stage.chunks()) == 2000

    if ends in errors:
        with pytest.raises(errors[ends]):
            work()
    else:
        work()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with scratch_beside(tmp_path / "store"), RowStage(500, 4, budget_bytes=SMALL_BUDGET) as stage:
        monkeypatch.setattr(Path, "open", full)
        with pytest.raises(StoreError, match=r"cannot hold the readings .*: No space left"):
            stage.put_block(0, 0, np.ones((500, 4, 1)))


def test_memory_stays_in_the_budget(tmp_path: Path) -> None:
    budget, rows, nodes = 1 << 20, 40_000, 40  # 12.8 MB, sensor after sensor
    column = np.arange(rows, dtype=np.float64)[:, None, None]
    with scratch_beside(tmp_path / "store"), RowStage(rows, nodes, budget_bytes=budget) as stage:
        tracemalloc.start()
        try:
            for node in range(nodes):
                stage.put_block(0, node, column)
            total = sum(float(chunk.sum()) for chunk in stage.chunks())
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert total == nodes * column.sum()
    assert peak < 2 * budget
