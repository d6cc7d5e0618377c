"""Whichever call to the system fails, with whatever error: one line says it, nothing is lost."""

import random
import re
import shutil
import sys
from dataclasses import dataclass

import pytest

from pgti.errors import PgtiError
from pgti.store import SeriesStore

from .commands import COMMANDS, SLOW_COMMANDS, Command, State, state_of
from .walker import Ended, Fault, Walker

pytestmark = [
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler"),
    pytest.mark.skipif(sys.platform != "linux", reason="calls are intercepted on Linux alone"),
]

ALL = (*COMMANDS, *SLOW_COMMANDS)
_NO_CLEANING = re.compile("(remove|truncate|list|read) ")
_TEMPORARY = re.compile(r"\.partial$|\.(tmp|old|fetched|unzipped|unpacked)-|lock$|scratch|^tmp/.")
_LASTING = ("EIO", "EROFS", "EMFILE", "EACCES")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command in its place.

    Attributes:
        command: the command.
        walker: runs it.
        old: what the root holds before.
        new: the state that the command leaves.
        num_calls: how many calls it makes.
    """

    command: Command
    walker: Walker
    old: State
    new: State
    num_calls: int

    @classmethod
    def of(cls, command: Command, walker: Walker) -> "Case":
        """The case of a command, which runs once."""
        walker.restore()
        ended = walker.run(command.tokens, lists_modules=True)
        assert (ended.code, ended.err) == (0, ""), command.name
        walker.import_all(ended.modules)
        return cls(
            command=command,
            walker=walker,
            old=state_of(walker.template),
            new=state_of(walker.root),
            num_calls=len(ended.calls),
        )

    def problems(self, fault: Fault) -> list[str]:
        """What is wrong after a fault."""
        self.walker.restore()
        ended = self.walker.run(self.command.tokens, fault)
        problem = self._problem_of_end(ended) or self._problem_of_state(ended, fault)
        if problem is None:
            return []
        failed = ", ".join(ended.failed[:3])
        return [f"{self.command.name}, {fault}: after {failed}: {problem}; {ended.err[-500:]!r}"]

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
        nearest = min((self.new, self.old), key=lambda state: len(left.items() ^ state.items()))
        different = sorted({name for name, _ in left.items() ^ nearest.items()})
        return f"these are neither old nor new: {different[:8]}"


def test_some_faults_of_every_kind(walker: Walker) -> None:
    """One of a command, the same at each time; the whole takes an hour."""
    chance, problems = random.Random(21), []
    for place, command in enumerate(COMMANDS):
        case = Case.of(command, walker)
        number, choice = chance.randint(1, case.num_calls), chance.randrange(60)
        problems += case.problems(Fault(number=number, choice=choice, persists=place % 2 == 1))
    assert problems == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("persists", [False, True])
@pytest.mark.parametrize("command", ALL, ids=lambda command: command.name)
def test_every_call_of_a_command(walker: Walker, command: Command, persists: bool) -> None:
    """Each call fails, once or for good, with an error that it can have."""
    chance, problems = random.Random(f"{command.name} {persists}"), []
    case = Case.of(command, walker)
    for number in range(1, case.num_calls + 1):
        choice = chance.randrange(60)
        problems += case.problems(Fault(number=number, choice=choice, persists=persists))
    assert problems == []


@pytest.mark.slow
@pytest.mark.parametrize("command", ALL, ids=lambda command: command.name)
def test_files_that_run_out(walker: Walker, command: Command) -> None:
    """At any limit of open files, up to one that is enough."""
    case, problems = Case.of(command, walker), []
    for files_left in range(16):
        problems += case.problems(Fault(files_left=files_left))
    assert problems == []
