"""The script that measures what known weather is worth."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).parents[1] / "covariates.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("covariates", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def errors(level: float) -> dict[str, Any]:
    by_step = {str(step): level + step for step in range(1, 25)}
    return {"mae": {**by_step, "mean": level}, "rmse": {"mean": 2 * level}}


def test_the_table_has_means_and_half_ranges(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, level in (("gru-with-0", 10), ("gru-with-1", 12), ("gru-without-1", 30)):
        result = {"test": errors(level), "best_epoch": level // 2, "seconds": 3}
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    baselines = {name: errors(40) for name in script.BASELINES}
    (tmp_path / "baselines.json").write_text(json.dumps({"test": baselines}))
    script.print_table(tmp_path)
    _, _, without, covariates, *others = capsys.readouterr().out.splitlines()
    assert without == "| gru | without | 15 | 3 | 31.00 | 36.00 | 42.00 | 54.00 | 30.00 | 60.00 |"
    assert covariates.startswith("| gru | with | 5, 6 | 3 | 12.00 ± 1.00 | 17.00 ± 1.00 |")
    assert covariates.endswith("| 11.00 ± 1.00 | 22.00 ± 2.00 |")
    assert [row.split(" | ")[0] for row in others] == [f"| {name}" for name in script.BASELINES]
