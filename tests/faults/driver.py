"""Runs commands with `shim.c` preloaded, each in a child of this process, which has imported all.

Reads a request a line and answers with a line, both JSON: see `Walker.run` in `walker.py`.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import torch

from pgti.cli.main import run_command
from pgti.datasets import DATASETS, catalogue
from pgti.run import study_processes

SHIM = ctypes.CDLL(None)
SHIM.fault_log.restype = ctypes.c_char_p


class TrainingInThisProcess:
    """Stands for the process of a training of a study: its calls are counted as well."""

    def __init__(
        self, command: list[str], *, stdout: IO[str], stderr: IO[str], **_options: Any
    ) -> None:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            self.returncode = run_command(command[3:])
            with contextlib.suppress(OSError):
                stdout.flush()
                stderr.flush()

    def wait(self) -> int:
        """The exit code."""
        return self.returncode

    poll = wait


def point_downloads(url: str) -> None:
    """Let all files of the catalogue come from one server."""
    for name, dataset in DATASETS.items():
        downloads = tuple(
            replace(each, url=f"{url}/{each.name}", md5=None) for each in dataset.downloads
        )
        catalogue.DATASETS = {**catalogue.DATASETS, name: replace(dataset, downloads=downloads)}


@contextlib.contextmanager
def files_left(number: int | None) -> Iterator[None]:
    """Let the process open so many files at a time, if it is not None."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if number is not None:
        taken = {int(each.name) for each in Path("/proc/self/fd").iterdir()}
        free = [each for each in range(before[0]) if each not in taken]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[number], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def work(request: dict[str, Any], answers: int) -> None:
    """Run the command of a request in the child."""
    torch.set_num_threads(1)
    for name, stream in (("out", sys.stdout), ("err", sys.stderr)):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
    root = request["root"]
    os.chdir(root)
    tempfile.tempdir = f"{root}/tmp"
    os.environ["TMPDIR"] = tempfile.tempdir
    os.environ["NO_PROXY"] = "127.0.0.1"
    if request["url"]:
        point_downloads(request["url"])
    study_processes.subprocess = SimpleNamespace(  # type: ignore[attr-defined]
        Popen=TrainingInThisProcess, DEVNULL=subprocess.DEVNULL
    )
    SHIM.fault_arm(
        root.encode(),
        ctypes.c_long(request["failing"]),
        ctypes.c_long(request["choice"]),
        int(request["persists"]),
    )
    if request["records"]:
        SHIM.fault_record()
    with files_left(request["files_left"]):
        code = run_command(request["tokens"])
    calls = SHIM.fault_log().decode(errors="replace").splitlines()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    modules = sorted(sys.modules) if request["lists_modules"] else []
    answer = json.dumps({"code": code, "calls": calls, "modules": modules})
    with os.fdopen(answers, "w") as file:
        print(answer, file=file)


def import_all(names: list[str]) -> None:
    """Import what commands have imported."""
    for name in names:
        with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or collections in the children would copy the memory that they share


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.dup(1)
    for line in sys.stdin:
        request = json.loads(line)
        if "import" in request:
            import_all(request["import"])
            os.write(answers, b"{}\n")
            continue
        child = os.fork()
        if child == 0:
            try:
                work(request, answers)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            os.write(answers, b'{"code": %d, "calls": [], "modules": []}\n' % -status)


if __name__ == "__main__":
    main()
