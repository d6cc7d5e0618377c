"""The programs of `docs/pgt.md`, with pgti's loader in the place of PGT's."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ...test_docs import ROOT, blocks
from .data_files import needs_pgt


@needs_pgt
def test_one_import_changes_and_everything_else_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script prints mph: the speeds are drawn with a deviation of 12.

    The forecast of the old checkpoint is that of PGT's layer.
    """
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    setup, before, import_line, *others = [
        text for _, text in blocks(ROOT / "docs/pgt.md", "python")
    ]
    old_line = "from torch_geometric_temporal.dataset import METRLADatasetLoader\n"
    assert old_line == before.splitlines(keepends=True)[1]
    names: dict[str, Any] = {}
    exec(compile(setup, "setup", "exec"), names)
    exec(compile(before.replace(old_line, import_line), "after", "exec"), names)
    assert names["loader"].__module__.startswith("pgti.")
    assert 5 < float(capsys.readouterr().out.split()[-1]) < 40
    for program in others:
        exec(compile(program, "docs/pgt.md", "exec"), names)
    assert (tmp_path / "build/from-signal/meta.json").exists()
    with torch.no_grad():
        expected = names["layer"](names["x"], names["edges"], names["weights"])
    torch.testing.assert_close(names["forecast"], expected * names["stds"] + names["means"])
