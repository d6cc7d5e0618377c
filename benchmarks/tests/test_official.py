"""`pgti-bench official`: steps beside those of released codes, which compute the same function."""

import json

import pytest
import torch
from torch import nn

from pgti_bench.app import run_command
from pgti_bench.official import measure
from pgti_bench.official.layers import Rival
from pgti_bench.official.rivals import RIVALS

SMALL = ["--sensors", "9", "--batch-size", "2", "--rounds", "1", "--threads", "1"]


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_forecasts_what_the_model_does(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the same weights, up to rounding; both have times and memory."""
    assert run_command(["official", "--models", name, *SMALL, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["models"]
    assert found["model"] == name
    assert 0 <= found["difference"] < 1e-5
    assert found["ratio"]["median"] > 0
    assert min(found["own_peak_bytes"], found["official_peak_bytes"]) > 0


def test_another_function_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its time would say nothing."""

    class Other(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(x), 12, x.shape[2], 1)

    monkeypatch.setitem(measure.RIVALS, "tgcn", Rival(lambda *_: Other(), "nobody"))
    assert run_command(["official", "--models", "tgcn", *SMALL]) == 1
    assert "they do not compute the same function" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--models", "lstm"], "there is no model 'lstm'"),
        (["--models", "gru"], "model 'gru' has no rival here"),
        (["--rounds", "0"], "rounds is 0: it must be at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["official", *options]) == 2
    assert words in capsys.readouterr().err
