"""The script that compares rules for missing inputs."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

FILE = Path(__file__).parents[1] / "missing_inputs.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("missing_inputs", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_gaps_have_their_share_and_lengths(script: ModuleType) -> None:
    values = np.ones((4000, 60), dtype=np.float32)
    script.remove_gaps(values)
    gone = np.isnan(values)
    assert script.SHARE <= gone.mean() < script.SHARE + 0.01
    edges = np.diff(np.pad(gone, ((1, 1), (0, 0))).astype(int), axis=0)
    lengths = [
        stop - start
        for column in edges.T
        for start, stop in zip(
            np.flatnonzero(column == 1), np.flatnonzero(column == -1), strict=True
        )
    ]
    assert all(lengths.count(length) > 5 for length in script.GAPS)
    again = np.ones_like(values)
    script.remove_gaps(again)
    np.testing.assert_array_equal(again, values)


def test_rules_on_one_gap(script: ModuleType) -> None:
    """A sensor at 4 where 1 is typical, then typical values 2 and 3 with its readings missing."""
    mask = torch.tensor([True, False, False]).view(1, 3, 1, 1)
    typical = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
    expected = {
        "mean": [4, 0, 0],
        "last": [4, 4, 4],
        "typical": [4, 2, 3],
        "shifted": [4, 5, 6],
        "fading": [4, 2 + 2.7, 3 + 2.43],
    }
    assert set(expected) == set(script.RULES)
    for name, rule in script.RULES.items():
        x = torch.tensor([4.0, 0.0, 0.0]).view(1, 3, 1, 1)
        rule(x, mask, typical, torch.tensor([[0, 1, 2]]))
        torch.testing.assert_close(x.flatten().tolist(), [float(each) for each in expected[name]])


def test_table(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Means over seeds, an empty cell where a rule was not measured."""

    def result(mae: float) -> dict[str, dict[str, dict[str, float]]]:
        return {"test": {"mae": {"mean": mae}, "rmse": {"mean": 2 * mae}}}

    script.print_table(
        {
            "gaps/gru/0/mean": result(1),
            "gaps/gru/1/mean": result(2),
            "gaps/gru/0/last": result(3),
            "beijing/gru/0/mean": result(4),
        }
    )
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| gaps | gru | 2 | 1.500 / 3.000 | 3.000 / 6.000 |",
        "| beijing | gru | 1 | 4.000 / 8.000 |  |",
    ]
