"""The programs in `docs/pgt.md` run as they stand there."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from .data_files import import_pgt, make_store, needs_pgt, write_metr_la

DOCS = Path(__file__).parents[3] / "docs" / "pgt.md"


def programs() -> list[str]:
    return re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(name="directory")
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a user: PGT's files, a store, and a checkpoint."""
    (tmp_path / "data").mkdir()
    (tmp_path / "build").mkdir()
    write_metr_la(tmp_path / "data")
    make_store(tmp_path / "build" / "store")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def last_error(capsys: pytest.CaptureFixture[str]) -> float:
    return float(capsys.readouterr().out.split()[-1])


@needs_pgt
def test_the_script_runs_with_one_import_changed(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It trains with both, and mph are printed: the readings are drawn with a deviation of 12."""
    del directory
    import_pgt("nn.recurrent")
    before, import_line, *_ = programs()
    torch.manual_seed(0)
    exec(compile(before, "before", "exec"), {})
    assert 5 < last_error(capsys) < 40
    old_line = "from torch_geometric_temporal.dataset import METRLADatasetLoader\n"
    assert old_line == before.splitlines(keepends=True)[1]
    after = before.replace(old_line, import_line)
    names: dict[str, Any] = {}
    exec(compile(after, "after", "exec"), names)
    assert names["loader"].__module__.startswith("pgti.")
    assert 5 < last_error(capsys) < 40


@needs_pgt
def test_every_other_program_runs(directory: Path) -> None:
    """One after the other; the forecast of the old checkpoint is that of PGT's layer."""
    torch.manual_seed(1)
    layer = import_pgt("nn.recurrent").BatchedDCRNN(2, 2, K=3)
    torch.save(layer.state_dict(), directory / "old.pt")
    names: dict[str, Any] = {}
    found = programs()[2:]
    assert len(found) == 4
    for program in found:
        exec(compile(program, "docs/pgt.md", "exec"), names)
    assert (directory / "build" / "from-signal" / "meta.json").exists()
    with torch.no_grad():
        expected = layer(names["x"], names["edges"], names["weights"])
    torch.testing.assert_close(names["forecast"], expected * names["stds"] + names["means"])
