"""Whichever call to the system fails, with whatever error: nothing is lost, and one line says it."""

import random
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from pgti.errors import PgtiError
from pgti.store import SeriesStore

from ..datasets.file_server import Served, serving
from ..datasets.published_files import chickenpox
from .commands import COMMANDS, Command, State, make_inputs, state_of
from .walker import Ended, Fault, Walker, open_walker

pytestmark = [
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler"),
    pytest.mark.skipif(sys.platform != "linux", reason="calls are intercepted on Linux alone"),
]

_NO_CLEANING = re.compile("(remove|truncate|list|read) ")
_TEMPORARY = re.compile(r"\.partial$|\.(tmp|old|fetched|unzipped|unpacked)-|lock$|scratch|^tmp/.")
_LASTING = ("EIO", "EROFS", "EMFILE", "EACCES")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command in its place.

    Attributes:
        command: the command.
        walker: runs it.
        template: what the root holds before.
        old: the same as a state.
        new: the state that the command leaves.
        num_calls: how many calls it makes; those that open for reading apart.
    """

    command: Command
    walker: Walker
    template: Path
    old: State
    new: State
    num_calls: tuple[int, int]

    @classmethod
    def of(cls, command: Command, walker: Walker, template: Path) -> "Case":
        """The case of a command, which runs twice."""
        num_calls = []
        for counts_reads in (False, True):
            replace_root(walker, template)
            fault = Fault(counts_reads=counts_reads)
            ended = walker.run(command.tokens, fault, lists_modules=True)
            assert (ended.code, ended.err) == (0, ""), command.name
            walker.import_all(ended.modules)
            num_calls.append(len(ended.calls))
        new = state_of(walker.root)
        return cls(
            command=command,
            walker=walker,
            template=template,
            old=state_of(template),
            new=new,
            num_calls=(num_calls[0], num_calls[1]),
        )

    def problem(self, fault: Fault) -> str | None:
        """What is wrong after a fault."""
        replace_root(self.walker, self.template)
        ended = self.walker.run(self.command.tokens, fault)
        problem = self._problem_of_end(ended) or self._problem_of_state(ended, fault)
        if problem is None:
            return None
        failed = ", ".join(ended.failed[:3])
        return f"{self.command.name}, {fault}: after {failed}: {problem}; {ended.err[-500:]!r}"

    def _problem_of_end(self, ended: Ended) -> str | None:
        lines = ended.err.splitlines()
        if ended.code == 0:
            return "it says something" if lines else None
        if ended.code != 2:
            return f"it ends with {ended.code}"
        if len(lines) != 1 or not lines[0].startswith("pgti: error: "):
            return "it does not say one line"
        return None

    def _problem_of_state(self, ended: Ended, fault: Fault) -> str | None:
        left = state_of(self.walker.root)
        if left == self.new or (ended.code and left == self.old):
            return None
        if self._may_litter(ended, fault):
            if ended.code == 0:
                return None
            problem = self._problem_of_store()
        elif self.command.resumes:
            known = self.new.keys() | self.old.keys()
            strange = sorted(name for name in left.keys() - known if _TEMPORARY.search(name))
            problem = f"it leaves {strange}" if strange else None
        else:
            problem = self._differences(left)
        if problem:
            return problem
        repeated = self.walker.run(self.command.again)
        if repeated.code:
            return f"another start fails: {repeated.err}"
        left = state_of(self.walker.root)
        return None if left == self.new else f"after another start, {self._differences(left)}"

    def _may_litter(self, ended: Ended, fault: Fault) -> bool:
        """Whether what failed is needed to clean up."""
        return any(
            _NO_CLEANING.match(call) or (fault.persists and call.endswith(_LASTING))
            for call in ended.failed
        )

    def _problem_of_store(self) -> str | None:
        try:
            SeriesStore.open(self.walker.root / "store").verify()
        except PgtiError as error:
            return str(error)
        return None

    def _differences(self, left: State) -> str:
        wanted = (
            self.new
            if len(left.items() ^ self.new.items()) < len(left.items() ^ self.old.items())
            else self.old
        )
        different = sorted({name for name, _ in left.items() ^ wanted.items()})
        return f"these are neither old nor new: {different[:8]}"


def replace_root(walker: Walker, template: Path) -> None:
    shutil.rmtree(walker.root, ignore_errors=True)
    shutil.copytree(template, walker.root)


@pytest.fixture(scope="module")
def _walker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Walker, Path]]:
    scratch = tmp_path_factory.mktemp("faults")
    with open_walker(scratch) as walker, serving() as server:
        server.files["chickenpox.json"] = Served(chickenpox())
        walker.url = server.url
        make_inputs(walker)
        template = scratch / "template"
        shutil.copytree(walker.root, template)
        yield walker, template
