"""What ranks can do together, and how they fail together."""

import pytest
import torch

from pgti.distributed import Message, SingleProcess

from .conftest import RunRanks


def test_collectives(run_ranks: RunRanks) -> None:
    for rank, result in enumerate(run_ranks("collectives", 3)):
        assert result["sum"].tolist() == [3.0, 3.0]
        assert result["later"].item() == 6
        assert [each.flatten().tolist() for each in result["several"]] == [[3.0] * 4, [3.0] * 3]
        assert result["given"].item() == 0
        assert result["short"].tolist() == [0, 0, 0]
        assert result["columns"].tolist() == [[0, 2], [4, 6]]
        for sparse in result["sparse"]:
            assert torch.equal(sparse, torch.eye(3))
        assert result["largest"] == [2, 0]
        assert result["share"] == b"from 0"
        assert result["texts"] == ["text 0", "", "text 2"]
        assert result["no texts"] == ["", "", ""]
        assert result["any"] is True
        sent = result["sent"]
        assert (sent["metrics"], sent["counts"], sent["gradients"]) == (16, 8, 28)
        assert sent["data"] == 0
        assert sent["control"] > (0 if rank else 8)


@pytest.mark.parametrize("rank", [0, 2])
def test_where_one_rank_refuses_all_do(run_ranks: RunRanks, rank: int) -> None:
    results = [result["error"] for result in run_ranks("refuse", 3, rank=rank)]
    for other, error in enumerate(results):
        if other == rank:
            assert error == "PgtiError: this rank's disk is full"
        else:
            assert error == f"PeerError: rank {rank}: this rank's disk is full"


@pytest.mark.parametrize("first", [0, 1])
def test_nobody_leaves_while_rows_are_on_their_way(run_ranks: RunRanks, first: int) -> None:
    """As where training ends while rows for another epoch are sent: that is no failure."""
    for result in run_ranks("leave", 3, first=first, seconds=1.0):
        assert result == {}


def test_ranks_that_have_left_can_meet_again(run_ranks: RunRanks) -> None:
    """Whoever still holds the communicator that was closed."""
    assert [result.get("sums") for result in run_ranks("reopen", 2)] == [[2.0, 2.0]] * 2


def test_one_process_is_the_sum_of_itself() -> None:
    communicator = SingleProcess()
    tensor = torch.tensor([1.0, 2.0])
    communicator.all_reduce_(tensor, "gradients")
    communicator.all_reduce_async(tensor, "counts").wait()
    communicator.all_reduce_coalesced_([tensor], "gradients")
    communicator.broadcast_(tensor)
    assert tensor.tolist() == [1.0, 2.0]
    assert communicator.all_reduce_max([3, -1]) == [3, -1]
    assert communicator.broadcast_bytes(b"x") == b"x"
    assert communicator.all_gather_text("a") == ["a"]
    assert not communicator.any(False)
    communicator.barrier()
    communicator.exchange([], []).wait()
    with pytest.raises(ValueError, match="no rank to exchange"):
        communicator.exchange([Message(peer=1, tag=0, tensor=tensor)], [])
    assert set(communicator.traffic.sent_bytes.values()) == {0}
