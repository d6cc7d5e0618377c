"""Commands whose calls to the system fail one by one: what they leave, and what they say."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A call that fails.

    Attributes:
        number: which call, from 1; 0 for none.
        choice: chooses among the errors that the call can have.
        persists: whether all later calls that can have the same error fail as well, as on a disk
            that is full.
        files_left: how many files the process can have open at a time beside those that it has; no
            limit of its own if not given.
    """

    number: int = 0
    choice: int = 0
    persists: bool = False
    files_left: int | None = None


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command has ended.

    Attributes:
        code: its exit code.
        out: what it wrote on standard output.
        err: on standard error.
        calls: a line for each call that counts, with the error of those that failed.
        modules: what it had imported, if asked for.
    """

    code: int
    out: str
    err: str
    calls: list[str]
    modules: list[str]

    @property
    def failed(self) -> list[str]:
        """The calls that failed."""
        return [call for call in self.calls if ": E" in call]


class Walker:
    """Runs commands below a directory, in children of a process that has imported everything.

    Args:
        shim: the compiled shim.
        scratch: an empty directory.

    Attributes:
        root: the directory.
        template: what it holds before a command, once it is made.
        url: of the server that has the files of data sets.
    """

    def __init__(self, shim: Path, scratch: Path) -> None:
        self._scratch = scratch
        self.root, self.template = scratch / "root", scratch / "template"
        self.url = ""
        self._imported = set[str]()
        self._driver = subprocess.Popen(
            [sys.executable, str(HERE / "driver.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"},
        )

    def run(
        self,
        tokens: Sequence[str],
        fault: Fault | None = None,
        *,
        lists_modules: bool = False,
        records: bool = False,
    ) -> Ended:
        """Run a command line in the root.

        Args:
            tokens: the command line.
            fault: the call that fails; none if not given.
            lists_modules: whether to list what was imported.
            records: whether the calls also say what they have changed, in lines that begin with =.
        """
        fault = fault or Fault()
        out, err = self._scratch / "out", self._scratch / "err"
        answer = self._ask(
            {
                "tokens": list(tokens),
                "root": str(self.root),
                "out": str(out),
                "err": str(err),
                "url": self.url,
                "failing": fault.number,
                "choice": fault.choice,
                "persists": fault.persists,
                "files_left": fault.files_left,
                "lists_modules": lists_modules,
                "records": records,
            }
        )
        return Ended(out=out.read_text(), err=err.read_text(), **answer)

    def restore(self) -> None:
        """Let the root hold what it held at first."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.template, self.root)

    def import_all(self, names: list[str]) -> None:
        """Let the process import what its children would import again and again."""
        self._ask({"import": sorted({*names} - self._imported)})
        self._imported.update(names)

    def close(self) -> None:
        """End the process."""
        self._driver.communicate()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        print(json.dumps(request), file=self._driver.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self._driver.stdout.readline())
        return answer


@contextmanager
def open_walker(scratch: Path) -> Iterator[Walker]:
    """Compile the shim and start the process."""
    shim = scratch / "shim.so"
    subprocess.run(
        ["cc", "-O1", "-shared", "-fPIC", "-o", str(shim), str(HERE / "shim.c"), "-ldl"], check=True
    )
    walker = Walker(shim, scratch)
    try:
        yield walker
    finally:
        walker.close()
