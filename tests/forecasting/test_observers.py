"""Progress for people."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from pgti.forecasting import RichObserver

from ..training.tiny_training import make_setting, make_trainer, open_run

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


def test_without_a_terminal_there_is_a_line_per_epoch(tmp_path: Path) -> None:
    """Loss, error, speed and time; no control codes."""
    text = io.StringIO()
    observer = RichObserver(Console(file=text, width=20))

    make_trainer(make_setting(tmp_path), open_run(tmp_path / "run"), observer).fit()

    lines = text.getvalue().splitlines()
    assert len(lines) == 3
    for number, line in enumerate(lines, start=1):
        assert re.match(rf"{TIME} epoch {number}: train loss ", line)
        for word in ("val MAE", "windows/s", "lr ", f"step {4 * number}"):
            assert word in line
    assert "\x1b" not in text.getvalue()


def test_without_a_terminal_there_is_a_line_soon_and_then_one_a_minute() -> None:
    """Time, step, windows, loss and rate; a pass without steps has windows and rate."""
    text, now = io.StringIO(), 1000.0
    observer = RichObserver(Console(file=text, width=20), clock=lambda: now)

    observer.begin("epoch 2/3", 1_200, done=200, step=50)
    for number in range(1, 11):
        now += 13
        observer.advance(64, lambda number=number: number / 3)
    observer.begin("evaluating", 100)
    for _ in range(2):
        now += 59
        observer.advance(10)

    assert text.getvalue().count("\n") == 3
    first, second, third = (re.sub(TIME, "TIME", line) for line in text.getvalue().splitlines())
    assert first == "TIME epoch 2/3: step 51, 264 of 1,200 windows, loss 0.3333, 4.9 windows/s"
    assert second == "TIME epoch 2/3: step 56, 584 of 1,200 windows, loss 2.0000, 4.9 windows/s"
    assert third == "TIME evaluating: 20 of 100 windows, 0.2 windows/s"


def test_a_terminal_shows_loss_and_time_left(tmp_path: Path) -> None:
    """The bar is drawn while training and taken away at the end."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)

    make_trainer(make_setting(tmp_path), open_run(tmp_path / "run"), RichObserver(console)).fit()

    shown = text.getvalue()
    for word in ("epoch 1/3", "epoch 3/3", "windows/s", "loss "):
        assert word in shown


def test_progress_goes_to_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Standard output is for results."""
    make_trainer(make_setting(tmp_path), open_run(tmp_path / "run"), RichObserver()).fit()

    captured = capfd.readouterr()
    assert captured.out == ""
    assert "epoch 3: train loss" in captured.err
