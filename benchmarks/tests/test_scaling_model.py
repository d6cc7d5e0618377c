"""The scaling model's arithmetic, against numbers worked by hand."""

from dataclasses import replace

import numpy as np
import pytest

from pgti.windows import EvenSharding, GlobalShuffle, Sequential
from pgti_bench.scaling.measurements import Compute
from pgti_bench.scaling.model import (
    DaskCosts,
    Parts,
    StepModel,
    SystemParts,
    exchanged_bytes,
    slowest_of,
)
from pgti_bench.scaling.network import NETWORKS, Network, Timing, fit_line, fit_network
from pgti_bench.scaling.options import ScalingOptions


def network(*, ring_only: bool = False, ranks_per_node: int = 1) -> Network:
    """A millisecond a message, and a megabyte a second for each node."""
    return Network(
        name="slow",
        alpha_seconds=1e-3,
        node_bytes_per_second=1e6,
        ranks_per_node=ranks_per_node,
        ring_only=ring_only,
        source="made up",
    )


def parts(dask: DaskCosts | None = None, competitors: dict[int, float] | None = None) -> Parts:
    return Parts(
        compute_seconds={1: (0.3,), 2: (0.4,), 4: (0.4,)},
        competitors={1: 0.0, 2: 0.0, 4: 0.0} if competitors is None else competitors,
        systems={
            "replicated": SystemParts(prefetched=True, host_seconds=0.1, assemble_seconds=0.05),
            "device": SystemParts(prefetched=False, host_seconds=0.1, assemble_seconds=0.05),
            "partitioned-global": SystemParts(
                prefetched=True, host_seconds=0.1, assemble_seconds=0.05
            ),
            "dask": SystemParts(prefetched=False, host_seconds=9.0, assemble_seconds=0.05),
        },
        gradient_bytes=4000,
        message_bytes=40,
        dask=dask,
        loopback=network(ring_only=True),
        cores=2,
    )


DASK = DaskCosts(
    calls=2,
    call_seconds=0.01,
    bytes_per_second=1e8,
    scheduler_seconds=0.002,
    busy_seconds=0.07,
    batch_bytes=1_000_000,
)


def model() -> StepModel:
    return StepModel(parts(DASK), draws=10, seed=0)


def test_all_reduces_of_four_ranks() -> None:
    """Ring: 6 messages of a quarter. Tree: 4 messages of everything. The faster one counts."""
    slow = network()
    assert slow.ring_seconds(4, 4000) == pytest.approx(6 * (1e-3 + 1e-3))
    assert slow.tree_seconds(4, 4000) == pytest.approx(4 * (1e-3 + 4e-3))
    assert slow.all_reduce_seconds(4, 4000) == pytest.approx(12e-3)
    assert slow.all_reduce_seconds(4, 40) == pytest.approx(4 * (1e-3 + 4e-5))
    assert network(ring_only=True).all_reduce_seconds(4, 40) == pytest.approx(6 * 1.01e-3)
    assert slow.tree_seconds(5, 0) == pytest.approx(2 * 3 * 1e-3)  # three levels hold five


def test_one_rank_has_nobody_to_wait_for() -> None:
    assert network().all_reduce_seconds(1, 1 << 20) == 0


def test_ranks_of_a_node_share_its_bandwidth() -> None:
    shared = network(ranks_per_node=4)
    assert shared.bytes_per_second == 250_000
    assert shared.messages_seconds(3, 1e6) == pytest.approx(3e-3 + 4)
    assert next(each for each in NETWORKS if "Slingshot" in each.name).bytes_per_second == 12.5e9


def test_a_network_is_found_again_in_its_timings() -> None:
    true = network(ring_only=True)
    timings = [
        Timing(ranks=ranks, num_bytes=size, seconds=true.ring_seconds(ranks, size))
        for ranks in (2, 4)
        for size in (8, 1024, 1 << 20)
    ]
    fitted = fit_network("loopback", timings, "a test")
    assert fitted.alpha_seconds == pytest.approx(true.alpha_seconds, rel=1e-9)
    assert fitted.bytes_per_second == pytest.approx(true.bytes_per_second, rel=1e-9)
    assert fitted.ring_only


def test_a_line_never_falls() -> None:
    """Larger batches that took less time are noise: then bytes cost nothing."""
    assert fit_line([(1e6, 0.3), (2e6, 0.5)]) == pytest.approx((0.1, 2e-7))
    overhead, per_byte = fit_line([(1e6, 0.5), (2e6, 0.3)])
    assert 0.3 < overhead < 0.5
    assert per_byte == 0


@pytest.mark.parametrize("world_size", [1, 2, 8, 128])
def test_the_slowest_rank_is_the_quantile_that_it_must_be(world_size: int) -> None:
    """The largest of W draws is at most x with probability F(x)^W; the median has one half."""
    samples = tuple(range(1, 1001))
    drawn = slowest_of(samples, world_size, draws=20_000, seed=3)
    assert drawn == pytest.approx(1000 * 0.5 ** (1 / world_size), abs=12)


def test_resampling_is_seeded() -> None:
    samples = tuple(np.random.default_rng(0).random(20))
    one = slowest_of(samples, 4, draws=7, seed=1)
    assert one == slowest_of(samples, 4, draws=7, seed=1)
    assert one != slowest_of(samples, 4, draws=7, seed=2)


def test_steps_on_this_machine() -> None:
    """Fetching is hidden behind computing while there are cores for both."""
    here = model().here
    assert here("replicated", 1).step == pytest.approx(0.35)
    assert here("device", 1).step == pytest.approx(0.45)
    # Two ranks fill both cores: 2 (0.1 + 0.4 + 0.05) / 2, and rings of 40 and 4,000 bytes.
    rings = 2 * (1e-3 + 20e-6) + 2 * (1e-3 + 2e-3)
    assert here("replicated", 2).step == pytest.approx(0.55 + rings)
    # Four share them.
    rings = 6 * (1e-3 + 10e-6) + 6 * (1e-3 + 1e-3)
    assert here("replicated", 4).step == pytest.approx(1.1 + rings)
    assert here("device", 4).step == pytest.approx(1.1 + rings)


def test_others_take_their_share_of_the_cores() -> None:
    """Three others beside one rank on two cores leave it half of one; beside four, 2/7."""
    shared = StepModel(parts(competitors={1: 3.0, 2: 3.0, 4: 3.0}), draws=10, seed=0)
    assert shared.here("device", 1).step == pytest.approx(4 / 2 * 0.45)
    rings = 6 * (1e-3 + 10e-6) + 6 * (1e-3 + 1e-3)
    assert shared.here("device", 4).step == pytest.approx(7 / 2 * 0.55 + rings)
    alone = Compute(cpu_seconds=[0.4, 0.4], seconds=0.8)
    assert alone.competitors(2, 2) == 0
    assert alone.competitors(1, 2) == 0  # whatever the other core does
    halved = Compute(cpu_seconds=[0.4, 0.4], seconds=1.6)
    assert halved.competitors(2, 2) == pytest.approx(2)  # four on two cores have half of one each


def test_steps_over_a_network() -> None:
    """Each rank has its own cores there; two ranks computed at once on the two cores here."""
    collectives = network().all_reduce_seconds(8, 40) + network().all_reduce_seconds(8, 4000)
    over = model().over
    assert over("replicated", 8, network()).step == pytest.approx(0.45 + collectives)
    assert over("device", 8, network()).step == pytest.approx(0.55 + collectives)
    faster = over("replicated", 8, network(), compute_scale=0.1)
    assert faster.compute == pytest.approx(0.045)
    assert faster.step == pytest.approx(0.1 + collectives)  # fetching takes longer now
    # 7 messages and 2 MB at a megabyte a second: what is exchanged takes longer than computing.
    exchanging = over("partitioned-global", 8, network(), 2e6)
    assert exchanging.host == pytest.approx(0.1 + 7e-3 + 2)
    assert exchanging.step == pytest.approx(2.107 + collectives)


def test_dask_waits_for_its_scheduler_where_there_are_many_ranks() -> None:
    """2 calls of 10 ms and a megabyte at 100 MB/s; then 2 W calls of 2 ms, one after another."""
    assert DASK.seconds(1, None) == pytest.approx(0.03)
    assert DASK.seconds(4, None) == pytest.approx(0.03)
    assert DASK.seconds(128, None) == pytest.approx(0.512)
    # Three quarters of the bytes come from others, in four messages.
    assert DASK.seconds(4, network()) == pytest.approx(0.03 + 4e-3 + 0.75)
    assert model().here("dask", 1).step == pytest.approx(0.03 + 0.35)
    rings = 6 * (1e-3 + 10e-6) + 6 * (1e-3 + 1e-3)
    assert model().here("dask", 4).step == pytest.approx(4 * (0.07 + 0.45) / 2 + rings)


def test_rows_that_two_ranks_exchange() -> None:
    """Rows 0 to 9, half of them each. Windows 0 and 1 are rank 0's, 2 and 3 rank 1's: rows 2 to 5.

    Rank 1 has row 5 and is sent 2, 3 and 4; rank 0 has all of its rows.
    """
    sent = exchanged_bytes(Sequential(), range(8), 3, 2, 2, row_bytes=10)
    np.testing.assert_array_equal(sent, [[0, 30], [0, 0]])
    # The next batch: windows 4 and 5 (rows 4 to 7), and 6 and 7 (rows 6 to 9).
    sent = exchanged_bytes(Sequential(), range(8), 3, 2, 2, row_bytes=10, step=1)
    np.testing.assert_array_equal(sent, [[0, 0], [30, 0]])


def test_rows_that_many_ranks_exchange() -> None:
    """Each row that a rank's windows touch and others hold crosses once: counted row by row."""
    starts, span, world_size, order = range(5, 405), 24, 7, GlobalShuffle(3)
    sent = exchanged_bytes(order, starts, span, world_size, 8, row_bytes=2)
    owners = np.concatenate(
        [np.full(len(part), rank) for rank, part in enumerate(np.array_split(np.arange(423), 7))]
    )
    positions = order.epoch(400, 0)[:56]
    for rank in range(world_size):
        mine = EvenSharding(rank, world_size).shard(rank, positions, 400, 0)
        rows = {int(first) + each for first in mine for each in range(span)}
        counted = np.bincount(owners[sorted(rows)], minlength=world_size)
        counted[rank] = 0
        np.testing.assert_array_equal(sent[:, rank], 2 * counted)


def test_an_epoch_has_the_steps_of_the_paper() -> None:
    """73,568 training windows of PeMS, 64 of them on each GPU."""
    steps = [ScalingOptions().epoch_steps(ranks) for ranks in (1, 4, 8, 16, 32, 64, 128)]
    assert steps == [1150, 288, 144, 72, 36, 18, 9]


def test_gloo_has_rings_alone_and_ddp_sends_no_message() -> None:
    """10 GbE stands for gloo over TCP: 2 x 127 hops; the other networks have trees, too."""
    by_name = {each.name: each for each in NETWORKS}
    ethernet = by_name["10 GbE"]
    assert ethernet.all_reduce_seconds(128, 8) > 254 * ethernet.alpha_seconds
    assert {name for name, each in by_name.items() if each.ring_only} == {"10 GbE"}
    systems = {**parts().systems, "ddp": parts().systems["replicated"]}
    over = StepModel(replace(parts(), systems=systems), draws=10, seed=0).over
    message = ethernet.all_reduce_seconds(128, 40)
    own, ddp = over("replicated", 128, ethernet), over("ddp", 128, ethernet)
    assert own.step - ddp.step == pytest.approx(message)


def test_ranks_with_gpus_share_no_cores() -> None:
    """As many as there are compute at once, each at the speed of one alone."""
    gpus = StepModel(replace(parts(), cores=None), draws=10, seed=0)
    rings = 6 * (1e-3 + 10e-6) + 6 * (1e-3 + 1e-3)
    assert gpus.here("replicated", 4).step == pytest.approx(0.45 + rings)
