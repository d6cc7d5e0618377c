"""Every command and every flag that the pages name exists."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from cyclopts import App

from pgti.cli.app import COMMANDS, build_app
from pgti.models import MODELS
from pgti_bench import app as bench

from .pages import PAGES, ROOT, code_lines, page_name, read

_KNOWN = [name for group in COMMANDS.values() for name in group]
_ENDS = {"|", "&&", ";", "&", ">", "<", "2>", "||", "..."}
_EVERYWHERE = {"--help", "--version", "--quiet", "--debug"}
_ELSEWHERE = {  # of torchrun and SLURM
    *("--max-restarts", "--rdzv-endpoint", "--signals-to-handle", "--requeue", "--master-addr"),
    "--signal",
}


@cache
def options(command: str) -> frozenset[str]:
    """The flags of a command of pgti, without those of one model."""
    return _flags(build_app(command)[command])


def _flags(app: App) -> frozenset[str]:
    names = [name for each in app.assemble_argument_collection() for name in each.names]
    return frozenset(name for name in names if name.startswith("--")) | _EVERYWHERE


@cache
def model_options(name: str | None) -> frozenset[str]:
    """`--model.X` of a model, or of all."""
    entries = MODELS.values() if name is None or name not in MODELS else [MODELS[name]]
    fields = {field for entry in entries for field in entry.config.__dataclass_fields__}
    dashed = {field.replace("_", "-") for field in fields}
    return frozenset(f"--model.{no}{name}" for name in dashed for no in ("", "no-"))


def find_commands(line: str) -> Iterator[list[str]]:
    """The tokens behind each `pgti` of a line."""
    try:
        tokens = shlex.split(line, comments=True)
    except ValueError:  # a quotation mark in prose
        tokens = line.split()
    found: list[str] | None = None
    for token in tokens:
        if token == "pgti" or token.endswith("/pgti"):
            found = []
        elif token in _ENDS and found is not None:
            yield found
            found = None
        elif found is not None:
            found.append(token.strip("[]…"))
    if found:
        yield found


def mistakes(tokens: list[str]) -> list[str]:
    """What of a command does not exist."""
    if not tokens or not re.fullmatch(r"[a-z-]+", tokens[0]):
        return []  # prose, or `pgti COMMAND`
    command, *others = tokens
    if command.startswith("-"):
        return [] if command in _EVERYWHERE else [command]
    if command not in _KNOWN:
        return [f"pgti {command}"]
    flags = [token.split("=")[0] for token in others if token.startswith("--")]
    model = others[others.index("--model") + 1] if "--model" in others[:-1] else None
    known = options(command) | model_options(model)
    return [f"pgti {command} {flag}" for flag in flags if flag not in known]


@cache
def all_flags() -> frozenset[str]:
    """The flags of every command and model, of pgti and of pgti-bench."""
    ours = (options(name) for name in _KNOWN)
    return model_options(None).union(*ours, *(bench_options(name) for name in bench.COMMANDS))


@cache
def bench_options(command: str) -> frozenset[str]:
    """The flags of a command of pgti-bench, without those of one model."""
    return _flags(bench._app(command)[command])


NOW = [page for page in PAGES if page.name != "CHANGELOG.md"]  # which names what has gone


@pytest.mark.parametrize("page", NOW, ids=page_name)
def test_flags_in_prose_exist(page: Path) -> None:
    named = {code.split()[0].split("=")[0] for code in code_lines(read(page)) if code[:2] == "--"}
    assert named - all_flags() - _ELSEWHERE == set()


@pytest.mark.parametrize("page", NOW, ids=page_name)
def test_commands_have_options_that_exist(page: Path) -> None:
    commands = [each for line in code_lines(read(page)) for each in find_commands(line)]
    assert [wrong for command in commands for wrong in mistakes(command)] == []


def test_commands_that_the_program_names_exist() -> None:
    """In messages, in docstrings and in the commands of a report."""
    wrong = [
        f"{path.name}:{number}: {mistake}"
        for path in sorted((ROOT / "src/pgti").rglob("*.py"))
        for number, line in enumerate(read(path).splitlines(), start=1)
        for text in re.findall(r"pgti [a-z]+[^\"`]*", line)
        for command in find_commands(re.sub(r"[{}()]", "", text))
        for mistake in mistakes(command)
        if "--" in mistake
    ]
    assert wrong == []


def test_what_does_not_exist_is_found() -> None:
    line = "pgti train s --model stid --model.hops 2 --run r --epoch 3 | head && pgti trai s"
    assert [wrong for each in find_commands(line) for wrong in mistakes(each)] == [
        "pgti train --model.hops",
        "pgti train --epoch",
        "pgti trai",
    ]
