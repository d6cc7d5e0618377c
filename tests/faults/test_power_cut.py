"""After a power cut at any moment, whatever the disk had not flushed: the old or the new."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pgti.errors import StoreError
from pgti.store import SeriesStore
from pgti.store.appender import StoreAppender
from pgti.training import RunDirectory

from .commands import COMMANDS, state_of
from .power_cut import Disk, write_files
from .walker import Walker

CUTS = 8
Check = Callable[[Path], str]


def fingerprint_of(store: Path) -> str:
    """That of a store, all of whose files are what it says they are; "" without one."""
    if not store.exists():
        with pytest.raises(StoreError, match="no such directory"):
            SeriesStore.open(store)
        return ""
    opened = SeriesStore.open(store)
    opened.verify()
    return opened.fingerprint


def fingerprint_of_grown(store: Path) -> str:
    """The same; and another writer finds it in order."""
    before = fingerprint_of(store)
    with StoreAppender(store):
        pass
    assert fingerprint_of(store) == before
    parts = SeriesStore.open(store).meta
    assert {each.name for each in store.iterdir()} == {
        "meta.json", *(parts.file_of(part) for part in parts.parts)
    }  # fmt: skip
    return before


def step_of(run: Path) -> str:
    """How far a run has come that another start goes on with."""
    if not run.exists():
        return "none"
    directory = RunDirectory.open(run)
    directory.read_config()
    directory.read_info()
    directory.read_test()
    if not directory.last_checkpoint.exists():
        return "begun"
    if directory.best_checkpoint.exists():
        directory.load_best()
    progress = directory.load_last().progress
    assert directory.metrics_file.stat().st_size >= progress.metrics_bytes
    return f"step {progress.step}"


@pytest.mark.parametrize(
    ("name", "path", "check", "num_states"),
    [
        ("ingest", "new/deep/store", fingerprint_of, 2),
        ("overwrite", "store", fingerprint_of, 2),
        ("append", "store", fingerprint_of_grown, 2),
        ("append-recoded", "store", fingerprint_of_grown, 2),
        ("train", "new/run", step_of, 4),
        ("resume", "run", step_of, 2),
    ],
)
def test_what_a_power_cut_leaves(
    walker: Walker, tmp_path: Path, name: str, path: str, check: Check, num_states: int
) -> None:
    """Each state of the disk after each call: any of the writes and names that were pending."""
    (command,) = (each for each in COMMANDS if each.name == name)
    walker.restore()
    disk, chance = Disk(walker.root), random.Random(name)
    ended = walker.run(command.tokens, records=True)
    assert ended.code == 0
    known, found = set[tuple[tuple[str, bytes | None], ...]](), set[str]()
    for call in ended.calls:
        if not disk.apply(call):
            continue
        for number in range(CUTS):
            files = disk.after_cut(chance if number > 1 else None, keeps=number == 0)
            state = tuple(sorted(files.items()))
            if state not in known:
                place = tmp_path / str(len(known))
                write_files(files, place)
                found.add(check(place / path))
            known.add(state)
    assert len(found) == num_states
    assert len(known) > 10

    write_files(disk.after_cut(None, keeps=True), tmp_path / "whole")
    assert state_of(tmp_path / "whole") == state_of(walker.root), "calls were not seen"
    write_files(disk.after_cut(None), tmp_path / "flushed")
    final = check(walker.root / path)
    assert check(tmp_path / "flushed" / path) == final
