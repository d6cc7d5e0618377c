"""What makes two runs the same."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pgti.training import RunDirectory


def assert_same_run(expected: RunDirectory, found: RunDirectory) -> None:
    """Parameters and optimiser bit for bit, metrics and position apart from the clock."""
    wanted, got = _tensors(expected), _tensors(found)
    assert wanted.keys() == got.keys()
    for name, tensor in wanted.items():
        assert torch.equal(tensor, got[name]), name
    assert list(_timeless(expected.read_metrics())) == list(_timeless(found.read_metrics()))
    assert _timeless_position(expected) == _timeless_position(found)


def _tensors(run: RunDirectory) -> dict[str, Tensor]:
    """Network and optimiser tensors of the last checkpoint and network tensors of the best."""
    last, best = run.load_last(), run.load_best()
    named = {f"last.{name}": tensor for name, tensor in last.network.items()}
    named |= {f"last.trained.{name}": tensor for name, tensor in (last.trained or {}).items()}
    named |= {f"best.{name}": tensor for name, tensor in best.network.items()}
    for index, state in last.optimizer["state"].items():
        named |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
    return named


def _timeless(records: list[dict[str, object]]) -> Iterator[dict[str, object]]:
    """Lines of metrics.jsonl without what depends on the clock."""
    for record in records:
        yield {k: v for k, v in record.items() if k not in {"seconds", "windows_per_second"}}


def _timeless_position(run: RunDirectory) -> dict[str, object]:
    """Position of the last checkpoint without what depends on the clock."""
    plain = run.load_last().position
    # The digits of a time have no fixed width, so the length of metrics.jsonl differs too.
    return {k: v for k, v in plain.items() if "seconds" not in k and k != "metrics_bytes"}
