"""Sums of gradients over ranks: pgti's buckets, one message, and torch's DistributedDataParallel.

The first part measures on ranks of this machine, the second estimates what remains visible on GPUs.
"""

import json as json_text
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.table import Table

from pgti.cli.output import build_table, log, print_results
from pgti.errors import require_whole_number
from pgti.run.results import Machine, to_json
from pgti_bench.errors import BenchError
from pgti_bench.output import finish
from pgti_bench.worker import thread_settings

__all__ = ["Engine", "GradientsResult", "exposed_seconds", "gradients_command", "measure_gradients"]

Engine = Literal["buckets", "one message", "ddp"]
ENGINES: tuple[Engine, ...] = ("buckets", "one message", "ddp")

_BUCKET_BYTES = 25 * 2**20
_SIZES: Mapping[str, int] = {
    "dcrnn, 64 units": 373_313,
    "staeformer, METR-LA": 1_258_980,
    "st-llm, METR-LA (what learns)": 3_279_116,
    "mtgnn, 11,160 sensors": 16_000_604,
    "a network of 124 M parameters": 124_000_000,
}
_CLUSTERS: Mapping[str, Mapping[int, float]] = {
    "DGX-H200": {8: 150e9, 64: 60e9, 128: 60e9},
    "Polaris": {8: 30e9, 64: 30e9, 128: 30e9},
}
"""Bytes a second of a ring, by number of GPUs."""
_SECONDS_BY_GPUS = {8: 30e-6, 64: 75e-6, 128: 90e-6}  # of a message without content


@dataclass(frozen=True, kw_only=True, slots=True)
class GradientsResult:
    """The result of `measure_gradients`.

    Attributes:
        machine: where it was measured.
        load: mean number of runnable processes in the last minute, at the start.
        ranks: of the timed steps, each with one thread.
        parameters: of the timed network.
        seconds: of each step, by engine, alternated.
        backward_seconds: of each forward and backward pass without a sum.
        ratio_to_ddp: median of the steps of "buckets" over those of "ddp".
        error: largest difference of a gradient from that of one process, over the largest gradient,
            float64, by engine: three ranks with 2, 1 and 0 windows, and gaps.
        norm_error: the same of the running mean of a batch normalisation, on rank 2, which has no
            window, before and after the step.
        resumes_bitwise: whether parameters after three steps and three more of a new process group
            have the bits of six steps, float32, three ranks, by engine.
    """

    machine: Machine
    load: float
    ranks: int
    parameters: int
    seconds: Mapping[str, tuple[float, ...]]
    backward_seconds: tuple[float, ...]
    ratio_to_ddp: float
    error: Mapping[str, float]
    norm_error: Mapping[str, float]
    resumes_bitwise: Mapping[str, bool]


def exposed_seconds(num_bytes: int, gpus: int, bandwidth: float) -> tuple[float, float]:
    """Seconds that a step waits for its gradients: without overlap, and at best.

    A ring sends 2 (W - 1) / W of the bytes over each link (Patarasuk and Yuan, "Bandwidth optimal
    all-reduce algorithms", 2009). With overlap at best only the last bucket remains.

    Args:
        num_bytes: of all gradients.
        gpus: W.
        bandwidth: of a link, bytes a second.
    """
    latency = _SECONDS_BY_GPUS[gpus]
    by_byte = 2 * (gpus - 1) / gpus / bandwidth
    return latency + num_bytes * by_byte, latency + min(num_bytes, _BUCKET_BYTES) * by_byte


def measure_gradients(ranks: int, blocks: int, tokens: int, rounds: int) -> GradientsResult:
    """Measure all engines.

    Args:
        ranks: of the timed steps.
        blocks: of the timed network, 8.3 million parameters each.
        tokens: that each rank has of a batch.
        rounds: timed steps of each engine.

    Raises:
        BenchError: a rank failed.
    """
    load = os.getloadavg()[0]
    timed = _run_ranks(ranks, "time", blocks, tokens, rounds)
    checked = _run_ranks(3, "check", 0, 0, 0)
    seconds: dict[str, tuple[float, ...]] = {
        engine: tuple(timed["seconds"][engine]) for engine in ENGINES
    }
    median = {engine: statistics.median(times) for engine, times in seconds.items()}
    return GradientsResult(
        machine=Machine.here(),
        load=load,
        ranks=ranks,
        parameters=timed["parameters"],
        seconds=seconds,
        backward_seconds=tuple(timed["backward"]),
        ratio_to_ddp=median["buckets"] / median["ddp"],
        error=checked["error"],
        norm_error=checked["norm_error"],
        resumes_bitwise=checked["resumes_bitwise"],
    )


def _run_ranks(ranks: int, *arguments: object) -> dict[str, Any]:
    """What rank 0 of `pgti_bench.gradients_worker` prints."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "pgti_bench.gradients_worker", *map(str, arguments)]
    processes = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                **thread_settings(1),
                "RANK": f"{rank}",
                "WORLD_SIZE": f"{ranks}",
                "LOCAL_RANK": f"{rank}",
                "LOCAL_WORLD_SIZE": f"{ranks}",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": f"{port}",
            },
        )
        for rank in range(ranks)
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise BenchError("a rank of the benchmark failed; its message is above")
    found: dict[str, Any] = json_text.loads(outputs[0])
    return found


def gradients_command(
    *,
    ranks: Annotated[int, Parameter(help="Ranks of the timed steps.")] = 2,
    blocks: Annotated[int, Parameter(help="Blocks of 8.3 million parameters each.")] = 15,
    tokens: Annotated[int, Parameter(help="Tokens of a rank in a step.")] = 64,
    rounds: Annotated[int, Parameter(help="Timed steps of each engine.")] = 5,
    estimate: Annotated[
        bool, Parameter(negative="", help="Only estimate what is exposed on GPUs.")
    ] = False,
    json: Annotated[bool, Parameter(negative="", help="Print JSON.")] = False,
) -> None:
    """Compare sums of gradients over ranks, and estimate what they cost on GPUs.

    Buckets that leave during the backward pass, one message after it, and DistributedDataParallel
    with a sum as its hook and a masked window on a rank without windows. Step times alternate.
    """
    if estimate:
        print_results({"exposed": _estimates()}, _estimate_table(), as_json=json)
        return
    for name, value in (("ranks", ranks), ("blocks", blocks), ("tokens", tokens)):
        require_whole_number(name, value, 1)
    require_whole_number("rounds", rounds, 1)
    log(f"{ranks} ranks train {8.3 * blocks:.0f} million parameters")
    result = measure_gradients(ranks, blocks, tokens, rounds)
    print_results(to_json(result), _table(result), as_json=json)
    finish("gradients", result.machine, [])


def _table(result: GradientsResult) -> Table:
    rows = [
        (
            engine,
            f"{statistics.median(result.seconds[engine]):.2f}",
            f"{result.error[engine]:.1e}",
            f"{result.norm_error[engine]:.1e}",
            "yes" if result.resumes_bitwise[engine] else "no",
        )
        for engine in ENGINES
    ]
    title = (
        f"{result.parameters / 1e6:.0f} M parameters, {result.ranks} CPU ranks, load "
        f"{result.load:.1f}; forward and backward alone "
        f"{statistics.median(result.backward_seconds):.2f} s"
    )
    columns = ("engine", "s a step", "error", "error of batch norm", "resumes bit for bit")
    return build_table(title, columns, rows)


def _estimates() -> list[dict[str, object]]:
    return [
        {
            "network": name,
            "bytes": 4 * size,
            "cluster": cluster,
            "gpus": gpus,
            "exposed_seconds": exposed_seconds(4 * size, gpus, bandwidth),
        }
        for name, size in _SIZES.items()
        for cluster, speeds in _CLUSTERS.items()
        for gpus, bandwidth in speeds.items()
    ]


def _estimate_table() -> Table:
    def cell(size: int, gpus: int, bandwidth: float) -> str:
        whole, best = (1e3 * each for each in exposed_seconds(4 * size, gpus, bandwidth))
        return f"{whole:.2f}" if f"{whole:.2f}" == f"{best:.2f}" else f"{best:.2f} to {whole:.2f}"

    columns = ["network", "MB"]
    columns += [f"{name}, {gpus}" for name, speeds in _CLUSTERS.items() for gpus in speeds]
    rows = [
        (
            name,
            f"{4e-6 * size:.1f}",
            *(
                cell(size, gpus, bandwidth)
                for speeds in _CLUSTERS.values()
                for gpus, bandwidth in speeds.items()
            ),
        )
        for name, size in _SIZES.items()
    ]
    return build_table("Estimated ms of a step in which the GPU waits for gradients", columns, rows)
