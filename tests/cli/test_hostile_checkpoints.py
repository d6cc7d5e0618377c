"""Damaged and hostile checkpoints: every command that reads one refuses it in one line."""

import copy
import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pgti.cli.main import run_command

OPTIONS = ("--model.hidden", "2", "--model.layers", "1", "--windows.input-steps", "3",
           "--windows.horizon", "2")  # fmt: skip
Content = dict[str, Any]


def run(*tokens: object) -> int:
    return run_command([str(token) for token in tokens])


class Trained:
    """A run that was stopped after one step, and commands that read its checkpoints."""

    def __init__(self, path: Path) -> None:
        self.store, self.run, self.out = path / "store", path / "run", path / "out"
        self.out.mkdir()
        simulated = ("simulate", "--sensors", 4, "--steps", 120)
        assert run(*simulated, "--out", self.store) == 0
        assert run("train", self.store, "--run", self.run, *OPTIONS, "--max-steps", 1) == 0
        self.checkpoints = sorted((self.run / "checkpoints").iterdir())
        assert [each.name for each in self.checkpoints] == ["best.pt", "last.pt"]
        self.archives = [each.read_bytes() for each in self.checkpoints]
        self.path = path

    def commands(self) -> dict[str, tuple[object, ...]]:
        """Each in a form that works on a run that is whole."""
        fresh = ("train", self.store, "--max-steps", 1, "--from", self.run, "--run")
        return {
            "resume": ("train", self.store, "--run", self.run, "--resume", "--max-steps", 2),
            "from best": (*fresh, self.out / "best"),
            "from last": (*fresh, self.out / "last", "--from-checkpoint", "last"),
            "evaluate": ("evaluate", self.run),
            "predict": ("predict", self.run, "--out", self.out / "forecast.csv"),
            "report": ("report", self.run, "--out", self.out / "report.html"),
            "export": ("export", self.run, "--to", self.out / "model.pt2"),
        }

    def replace(self, mutate: Callable[[bytes], bytes]) -> None:
        """Give both checkpoints another content."""
        for path, archive in zip(self.checkpoints, self.archives, strict=True):
            path.write_bytes(mutate(archive))

    def tree(self) -> dict[str, bytes]:
        """Every file and its content."""
        return {
            str(each.relative_to(self.path)): each.read_bytes() if each.is_file() else b""
            for each in self.path.rglob("*")
        }


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("trained"))


def mutated(change: Callable[[Content], object]) -> Callable[[bytes], bytes]:
    """Another content, as torch writes it."""

    def mutate(archive: bytes) -> bytes:
        content = copy.deepcopy(torch.load(io.BytesIO(archive), weights_only=True))
        change(content)
        torch.save(content, buffer := io.BytesIO())
        return buffer.getvalue()

    return mutate


def first_of(content: Content) -> str:
    return next(iter(content["network"]))


def fill_first(value: float) -> Callable[[Content], object]:
    return lambda content: content["network"][first_of(content)].fill_(value)


def cast_first(content: Content) -> None:
    content["network"][first_of(content)] = content["network"][first_of(content)].double()


def with_directory_bit(archive: bytes) -> bytes:
    """The parameters are directories, of which torch returned memory that nothing had written."""
    changed = bytearray(mutated(lambda content: content)(archive))
    position = changed.index(b"PK\x01\x02")
    while position >= 0:
        changed[position + 38] |= 0x10
        position = changed.find(b"PK\x01\x02", position + 4)
    return bytes(changed)


def packed(archive: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        members = {each: file.read(each) for each in file.namelist()}
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def flip_middle(archive: bytes) -> bytes:
    changed = bytearray(archive)
    changed[len(archive) // 2] ^= 1
    return bytes(changed)


REFUSED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda archive: archive[:0],
    "truncated": lambda archive: archive[: len(archive) // 2],
    "zeros": lambda archive: bytes(len(archive)),
    "flipped": flip_middle,
    "directory bit": with_directory_bit,
    "packed": packed,
    "other format": mutated(lambda content: content.update(format=2)),
    "no format": mutated(lambda content: content.pop("format")),
    "missing field": mutated(lambda content: content.pop("scaler")),
    "unknown field": mutated(lambda content: content.update({"extra\n": 1})),
    "network of a number": mutated(lambda content: content.update(network=1)),
    "missing parameter": mutated(lambda content: content["network"].pop(first_of(content))),
    "parameter not finite": mutated(fill_first(float("nan"))),
    "parameter of another dtype": mutated(cast_first),
    "optimizer of a list": mutated(lambda content: content.update(optimizer=[])),
    "position of a text": mutated(lambda content: content["position"].update(step="1")),
    "endless position": mutated(lambda c: c["position"].update(step_in_epoch=float("inf"))),
    "huge position": mutated(lambda content: content["position"].update(step_in_epoch=1 << 70)),
    "scaler of other channels": mutated(lambda c: c["scaler"].update(mean=[1.0] * 2, std=[1.0, 1])),
    "scaler of zero": mutated(lambda content: content["scaler"].update(std=[0.0])),
    "fingerprint that a terminal obeys": mutated(lambda c: c.update(fingerprint="\x1b[31m")),
    "settings without a model": mutated(lambda content: content["settings"].pop("model")),
    "settings of bytes": mutated(lambda content: content["settings"].update(training=b"x")),
}  # fmt: skip

REFUSED_BY_RESUME: dict[str, Callable[[bytes], bytes]] = {
    "fingerprint of another store": mutated(lambda content: content.update(fingerprint="ab")),
    "moments of another shape": mutated(
        lambda content: content["optimizer"]["state"][0].update(exp_avg=torch.ones(7))
    ),
    "moments of a parameter that is not": mutated(
        lambda content: content["optimizer"]["state"].update({99: {}})
    ),
    "options of another optimizer": mutated(
        lambda content: content["optimizer"]["param_groups"][0].update(momentum=0.9)
    ),
    "learning rate": mutated(
        lambda content: content["optimizer"]["param_groups"][0].update(lr=float("inf"))
    ),
    "position past the epoch": mutated(
        lambda content: content["position"].update(step=10**9, step_in_epoch=10**9)
    ),
    "settings of another run": mutated(
        lambda content: content["settings"]["training"].update(batch_size=7)
    ),
    "settings out of range": mutated(
        lambda content: content["settings"]["training"].update(batch_size=-7)
    ),
}


def check_refused(
    trained: Trained, command: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit code 2, and every file as it was."""
    before = trained.tree()
    capsys.readouterr()
    assert run(*command) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("pgti: error: ")
    assert re.search("checkpoint|the run was|scaler", line), line
    assert line.isprintable()
    assert trained.tree() == before


@pytest.mark.parametrize("mutate", REFUSED.values(), ids=REFUSED)
def test_every_command_refuses_it(
    trained: Trained, mutate: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    trained.replace(mutate)
    for command in trained.commands().values():
        check_refused(trained, command, capsys)


@pytest.mark.parametrize("mutate", REFUSED_BY_RESUME.values(), ids=REFUSED_BY_RESUME)
def test_resume_refuses_what_it_alone_reads(
    trained: Trained, mutate: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    trained.replace(mutate)
    check_refused(trained, trained.commands()["resume"], capsys)


def test_every_command_takes_the_same_content_without_a_digest(trained: Trained) -> None:
    trained.replace(mutated(lambda content: content))
    for name, command in trained.commands().items():
        assert run(*command) == 0, name
