"""A server of processes for tests: it reads a job a line, forks its processes and reports ends.

Forking spares every process the seconds that importing torch and its compiler takes. See
`ProcessPool` in `conftest.py`, which is the client.
"""

import gc
import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed.run

import pgti.cli.first_step
import pgti.cli.job
import pgti.cli.main
import pgti.cli.progress
import pgti.datasets.simulated
import pgti.run.train
from pgti.distributed import init_communicator
from pgti.errors import PgtiError


def call(
    module: str, function: str, arguments: dict[str, Any], timeout: float, result_path: str
) -> None:
    """Save what a function of a file returns as one rank, or the error that it raises."""
    spec = importlib.util.spec_from_file_location(Path(module).stem, module)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    result: dict[str, Any] = {}
    try:
        with init_communicator(timeout_seconds=timeout) as communicator:
            result = getattr(loaded, function)(communicator, **arguments)
    except PgtiError as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    except Exception:  # noqa: BLE001 - the test is shown whatever went wrong
        result = {"error": traceback.format_exc()}
    torch.save(result, Path(result_path))


def work(process: dict[str, Any]) -> int:
    """Be one process of a job; gives its exit code."""
    torch.set_num_threads(1)
    os.environ |= process["environment"]
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        if name in process:
            stream.flush()
            os.dup2(os.open(process[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream.fileno())
    try:
        if process["program"] == "function":
            call(**process["arguments"])
        elif process["program"] == "torchrun":
            torch.distributed.run.main(process["arguments"])
        else:
            sys.argv[1:] = process["arguments"]
            pgti.cli.main.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as Python ends
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def main() -> None:
    """Do jobs until standard input ends."""
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])  # imports the compiler, once
    gc.freeze()  # or collections in the children would copy the memory that they share
    replies = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        numbers = {}
        for number, process in enumerate(json.loads(line)):
            child = os.fork()
            if child == 0:
                os._exit(work(process))
            numbers[child] = number
        print(json.dumps(list(numbers)), file=replies, flush=True)
        while numbers:
            child, status = os.wait()
            end = [numbers.pop(child), os.waitstatus_to_exitcode(status)]
            print(json.dumps(end), file=replies, flush=True)


if __name__ == "__main__":
    main()
