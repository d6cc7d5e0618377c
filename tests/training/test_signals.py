"""Requests to stop and to save, as training steps carry them."""

import pytest

from pgti.distributed import SingleProcess
from pgti.training.signals import StopVote


class Rank(SingleProcess):
    """One of several ranks, alone."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank, self.world_size = rank, 4


def test_rank_0_alone_asks_to_save_once_per_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it asks reaches all ranks; on GPUs a step later, when it must not ask again."""
    now = 100.0
    monkeypatch.setattr("pgti.training.signals.time.monotonic", lambda: now)
    main, other = (StopVote(Rank(rank), save_seconds=60) for rank in (0, 1))
    never = StopVote(Rank(0))
    assert main.bits() == 0
    now += 60
    assert (other.bits(), never.bits()) == (0, 0)
    asked = main.bits()
    assert asked
    assert main.bits() == 0
    for vote in (main, other):
        vote.receive(asked)
        assert vote.is_save_due
        assert (vote.signal_number, vote.has_callback_stopped) == (0, False)
        vote.receive(0)
        assert not vote.is_save_due
    now += 59
    assert main.bits() == 0
    now += 1
    assert main.bits() == asked
