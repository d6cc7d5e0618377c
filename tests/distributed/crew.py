"""Ranks for tests: `crew.py` reads a job a line, forks its ranks, and says how they ended.

Forking spares each rank the seconds that importing torch takes. Results are written to files.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import jobs
import torch

from pgti.distributed import Launch, init_communicator
from pgti.errors import PgtiError


def work(job: dict[str, Any], rank: int) -> int:
    """Do a job as one rank; gives the exit code."""
    torch.set_num_threads(1)
    launch = Launch(
        launcher="torchrun",
        rank=rank,
        world_size=job["world_size"],
        local_rank=rank,
        local_world_size=job["world_size"],
        port=job["port"],
    )
    result: dict[str, Any] = {}
    try:
        with init_communicator(launch=launch, timeout_seconds=job["timeout"]) as communicator:
            result = getattr(jobs, job["function"])(communicator, **job["arguments"])
    except PgtiError as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    except Exception:  # noqa: BLE001 - the test is shown whatever went wrong
        result = {"error": traceback.format_exc()}
    torch.save(result, Path(job["results"]) / f"{rank}.pt")
    return 0


def main() -> None:
    """Do jobs until standard input ends."""
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])  # imports the compiler, once
    for line in sys.stdin:
        job = json.loads(line)
        children = []
        for rank in range(job["world_size"]):
            child = os.fork()
            if child == 0:
                os._exit(work(job, rank))
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        sys.stdout.write(json.dumps(codes) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
