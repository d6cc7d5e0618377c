"""Checkpoints that torch reads and no training wrote: refused in one line, or without effect."""

import copy
import random
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pgti.errors import PgtiError, RunError
from pgti.run import ModelConfig, RunConfig
from pgti.run.config import complete_settings
from pgti.training import Checkpoint, RunDirectory, RunFingerprint
from pgti.training.checkpoint_file import read_checkpoint
from pgti.training.compatibility import check_settings, free_options

from .tiny_training import CONFIG, Setting, make_setting, make_trainer, open_run

WRONG: dict[str, Any] = {
    "None": None,
    "bool": True,
    "negative": -1,
    "huge": 1 << 70,
    "float": 1.5,
    "inf": float("inf"),
    "nan": float("nan"),
    "str": "x\ny",
    "bytes": b"x",
    "list": [1.0, [2]],
    "dict": {"x": {"y": 1}},
    "tensor": torch.ones(2, 5),
}
OF_AN_OPTION = ("None", "negative", "inf", "str", "missing")
"""Kinds that are tried on each of a hundred options."""

MEANT = {("position", "train_loss", "None"), ("position", "is_stopped", "bool")}
"""Values that a training may write there."""

Case = tuple[tuple[Any, ...], str]
Facts = tuple[Any, ...]


class Attacked:
    """A run of one epoch, whose last checkpoint is replaced and restored from."""

    def __init__(self, path: Path) -> None:
        config = replace(CONFIG, epochs=1, ema_decay=0.9)
        self.setting = make_setting(path, config, network="linear")
        self.run = open_run(path / "run", config)
        options = RunConfig(store=path, model=ModelConfig(name="linear"), training=config)
        self.settings = complete_settings(options.settings())
        self._trainer(self.setting, self.run).fit()
        self.path = self.run.last_checkpoint
        self.archive = self.path.read_bytes()
        self.content: dict[str, Any] = torch.load(self.path, weights_only=True)
        self.expected = self.restored()

    def _trainer(self, setting: Setting, run: RunDirectory) -> Any:
        fingerprint = RunFingerprint(store=setting.source.store.fingerprint, settings=self.settings)
        return make_trainer(setting, run, fingerprint=fingerprint)

    def restored(self) -> Facts:
        """What a training continues from, as `pgti train --resume` comes to it."""
        checkpoint = Checkpoint.parse(self.path, read_checkpoint(self.path))
        free = free_options(self.setting.config)
        check_settings(complete_settings(checkpoint.settings), self.settings, free=free)
        trainer = self._trainer(self.setting, self.run)
        trainer.restore(checkpoint)
        return (
            trainer.progress,
            checkpoint.scaler,
            checkpoint.fingerprint,
            trainer.state.to_checkpoint().network,
            trainer.state.to_checkpoint().trained,
            trainer.train_step.optimizer.state_dict(),
            trainer.train_step.learning_rate,
        )

    def outcome(self) -> str | None:
        """The refusal of what is in the file, None if it changes nothing."""
        try:
            found = self.restored()
        except PgtiError as error:
            return one_line(error)
        assert is_same(found, self.expected)
        return None


def one_line(error: PgtiError) -> str:
    """The text of a refusal."""
    assert str(error)
    assert str(error).isprintable(), repr(str(error))
    return str(error)


def is_same(one: Any, two: Any) -> bool:
    """Whether all numbers are the same, bit for bit and of one type."""
    if isinstance(one, Tensor):
        return isinstance(two, Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(is_same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(is_same, one, two))
    return type(one) is type(two) and bool(one == two)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Attacked:
    return Attacked(tmp_path_factory.mktemp("attacked"))


def places_in(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every field and nested field; of a list the first and the last element."""
    if place:
        yield place
    if isinstance(value, dict):
        for key, each in value.items():
            yield from places_in(each, (*place, key))
    if isinstance(value, list | tuple) and value:
        for index in {0, len(value) - 1}:
            yield from places_in(value[index], (*place, index))


def get_at(content: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        content = content[key]
    return content


def mutants_of(value: Any) -> dict[str, Any]:
    """What may stand in place of a value, by the name of the kind."""
    mutants = dict(WRONG)
    if isinstance(value, Tensor):
        flat = torch.zeros(()).expand(value.shape)
        mutants |= {
            "other dtype": value.double(),
            "rounded": value.half(),
            "whole": value.long(),
            "other shape": torch.cat([value.reshape(-1)] * 2),
            "row": value[None],
            "nan within": torch.full_like(value, torch.nan),
            "inf within": torch.full_like(value, torch.inf),
            "negative within": torch.full_like(value, -2.5),
            "sparse": value.to_sparse(),
            "meta shape": flat.expand(3, *value.shape),
        }
    if isinstance(value, dict):
        mutants |= {"extra": {**value, "x\ny": 1}, "other key": {**value, 7: 1}, "empty": {}}
        mutants["extra text"] = {**value, "extra": "text"}
    if isinstance(value, list):
        mutants |= {"longer": [*value, *value[-1:]], "empty": []}
    return mutants


def is_meant(place: tuple[Any, ...], kind: str, before: Any, after: Any) -> bool:
    """Whether a training may write this value there, so that nothing is wrong with it."""
    if (*place, kind) in MEANT:
        return True
    if kind == "missing":  # a parameter without a gradient has no state
        return place[:2] == ("optimizer", "state") and len(place) == 3
    if isinstance(before, float) and isinstance(after, float) and abs(after) < 1e9:
        return True
    is_square = place[-1] == "exp_avg_sq"  # of a gradient, which may exceed float32
    is_weight = place[0] in ("network", "trained") or place[-1] == "exp_avg" or is_square
    return is_weight and kind == ("inf within" if is_square else "negative within")


def cases_of(content: dict[str, Any], field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Mutations of a field, each the whole content of a file."""
    for place in places_in({field: content[field]}):
        before = get_at(content, place)
        for kind, mutant in {**mutants_of(before), "missing": None}.items():
            if is_meant(place, kind, before, mutant):
                continue
            if len(place) > 2 and field == "settings" and kind not in OF_AN_OPTION:
                continue
            changed = copy.deepcopy(content)
            holder = get_at(changed, place[:-1])
            if isinstance(holder, tuple):
                continue  # betas, which are ours
            if kind == "missing":
                del holder[place[-1]]
            else:
                holder[place[-1]] = mutant
            yield f"{place} {kind}", changed


@pytest.mark.parametrize(
    "share", [pytest.param(0.2, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)]
)
def test_every_field_of_every_wrong_kind(attacked: Attacked, share: float) -> None:
    """Refused in one line, or the training goes on from the very same state."""
    tried, refused, chance = 0, 0, random.Random(7)
    for field in attacked.content:
        for case, content in cases_of(attacked.content, field):
            if chance.random() >= share:
                continue
            torch.save(content, attacked.path)
            try:
                refused += attacked.outcome() is not None
            except Exception as error:  # which of them it was
                error.add_note(case)
                raise
            tried += 1
    assert tried > 1200 * share
    assert refused > tried / 2


def flipped(content: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    return bytes(changed)


def earlier(attacked: Attacked) -> bytes:
    """The archive as versions without a digest wrote it."""
    torch.save(attacked.content, attacked.path)
    return attacked.path.read_bytes()


def test_every_bit_of_a_checkpoint_is_under_its_digest(attacked: Attacked) -> None:
    """Wherever it is: every bit of the ends, of the directory and of headers, some elsewhere."""
    archive = attacked.archive
    directory = archive.index(b"PK\x01\x02")
    positions = {*range(64), *range(64, directory, 61), *range(directory, len(archive))}
    for position in positions:
        with pytest.raises(RunError, match="is damaged") as caught:
            Checkpoint.parse(attacked.path, flipped(archive, position, position % 8))
        assert str(caught.value).isprintable()


def headers_of(path: Path, archive: bytes) -> list[int]:
    """Places of the directory and of the headers, which no checksum covers."""
    with zipfile.ZipFile(path) as file:
        offsets = [each.header_offset for each in file.infolist()]
    headers = [offset + byte for offset in offsets for byte in range(30)]
    return [*headers, *range(archive.index(b"PK\x01\x02"), len(archive))]


def test_a_bit_of_an_earlier_checkpoint_is_found_or_without_effect(attacked: Attacked) -> None:
    archive = earlier(attacked)
    whole = Checkpoint.parse(attacked.path, archive)
    uncovered = headers_of(attacked.path, archive)
    chance = random.Random(7)
    places = [*chance.choices(uncovered, k=1000), *chance.choices(range(len(archive)), k=200)]
    refused = 0
    for position in places:
        try:
            found = Checkpoint.parse(attacked.path, flipped(archive, position, chance.randrange(8)))
        except RunError as error:
            refused += bool(one_line(error))
        else:
            for field in ("network", "trained", "optimizer", "position", "scaler", "settings"):
                assert is_same(getattr(found, field), getattr(whole, field))
    assert refused > len(places) / 2


def test_a_member_that_is_a_directory_is_refused(attacked: Attacked) -> None:
    """Of such a member torch returned memory that nothing had written."""
    archive = earlier(attacked)
    position = archive.index(b"PK\x01\x02")
    while archive[position : position + 4] == b"PK\x01\x02":
        changed = flipped(archive, position + 38, 4)
        with pytest.raises(RunError, match="no plain member"):
            Checkpoint.parse(attacked.path, changed)
        position = archive.find(b"PK\x01\x02", position + 4)


def test_an_earlier_checkpoint_without_a_digest_is_read(attacked: Attacked) -> None:
    earlier(attacked)
    assert attacked.outcome() is None


def test_a_later_format_is_told_from_damage(attacked: Attacked) -> None:
    """Whole, it is of another version; with a bit changed, it is damaged."""
    torch.save({**attacked.content, "format": 2}, attacked.path)
    assert "use the pgti that wrote it" in (attacked.outcome() or "")


@pytest.mark.parametrize("size", [0, 1, 21, 22, 93, 100, 10_000])
def test_zeros_and_a_truncated_file_are_one_line(attacked: Attacked, size: int) -> None:
    for content in (bytes(size), attacked.archive[:size], attacked.archive[-size:][:-1]):
        if content != attacked.archive:
            attacked.path.write_bytes(content)
            assert "damaged" in (attacked.outcome() or "")


def repacked(attacked: Attacked, **changes: Any) -> dict[str, bytes]:
    """The members of the archive by name, some of them replaced."""
    with zipfile.ZipFile(attacked.path) as file:
        members = {each.filename: file.read(each) for each in file.infolist()}
    return {**members, **changes}


def test_packed_members_are_refused_before_they_are_unpacked(attacked: Attacked) -> None:
    """A member of zeros may take any memory."""
    members = repacked(attacked)
    with zipfile.ZipFile(attacked.path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    assert "is packed" in (attacked.outcome() or "")


def with_pickle(attacked: Attacked, code: bytes) -> None:
    """An archive as torch writes it, with other instructions."""
    attacked.path.write_bytes(attacked.archive)
    (name,) = [each for each in repacked(attacked) if each.endswith("data.pkl")]
    members = repacked(attacked, **{name: b"\x80\x02" + code})
    with zipfile.ZipFile(attacked.path, "w") as file:
        for each, content in members.items():
            file.writestr(each, content)
        for information in file.infolist():
            information.external_attr = 0


ORDERED = b"ccollections\nOrderedDict\n)R"


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", id="memory"),
        pytest.param(b"\x96" + struct.pack("<Q", 1) + b"x.", id="bytes"),
        pytest.param(b"}NNsN\x85" + b"q\x01h\x01\x86" * 40 + b"K\x01s.", id="tuples"),
        pytest.param(b"}q\x01X\x01\x00\x00\x00ah\x01s.", id="itself"),
        pytest.param(ORDERED + b"q\x01X\x01\x00\x00\x00ah\x01s.", id="an ordered mapping"),
        pytest.param(b"](]q\x01(K\x01eh\x01h\x01e.", id="a list that is filled"),
        pytest.param(b"}N" + b"\x85" * (1 << 19) + b"K\x01s.", id="a deep key"),
        pytest.param(b"}" + b"(" * 99 + b"K\x01" + b"t" * 99 + b"K\x01s.", id="marked tuples"),
        pytest.param(b"}(K\x01K\x01K\x02\x85K\x01u.", id="one key of two"),
        pytest.param(b"}N" + b"X\x01\x00\x00\x00a\x86" * 99 + b"K\x01s.", id="pairs"),
        pytest.param(b"}ctorch\nSize\nK\x01\x85\x85RK\x01s.", id="a size"),
    ],
)
def test_a_pickle_that_asks_for_memory_or_time_is_refused(attacked: Attacked, code: bytes) -> None:
    with_pickle(attacked, code)
    assert "no checkpoint needs" in (attacked.outcome() or "")


@pytest.mark.parametrize(
    "code",
    [
        *(b"0.", b".", b"\x85.", b"t.", b"h\x07.", b"K", b"(\x85.", b"](e"),
        b"\x96" + struct.pack("<Q", 1 << 40) + b".",
        b"X\xff\xff\xff\x7fx.",
        b"}" + b"]" * 9999 + b"a" * 9998 + b"Ns.",
        b"\x8a\x09" + b"\x01" * 9 + b".",  # one of many numbers that have one hash
    ],
)
def test_a_pickle_that_takes_what_there_is_not_is_refused(attacked: Attacked, code: bytes) -> None:
    with_pickle(attacked, code)
    assert "damaged" in (attacked.outcome() or "")


def test_a_pickle_of_more_instructions_than_any_checkpoint_is_refused(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgti.training.checkpoint_file._MOST_OPCODES", 1000)
    with_pickle(attacked, b"](" + b"N" * 1000 + b"e.")
    assert "instructions" in (attacked.outcome() or "")
