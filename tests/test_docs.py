"""The Python blocks of a page work as written, one after the other."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("lightning", "accelerate")),
    reason="lightning or accelerate is not installed",
)
@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
def test_windows_in_other_loops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (DOCS / "windows.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 5
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/windows.md", "exec"), names)
    shown = re.findall(r"\n    (Batch of .*?)\n\n", page, re.DOTALL)[0]
    printed = capsys.readouterr().out.strip()
    numbers = r"\d+(\.\d+)?"
    same = [re.sub(numbers, "0", re.sub(r"\n +", "\n", text)) for text in (shown, printed)]
    assert printed.startswith("Batch of 64 windows on cpu")
    assert same[1].startswith(same[0])
    assert len(names["forecasts"]) > 1  # type: ignore[arg-type]
