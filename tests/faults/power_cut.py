"""A disk that keeps what was flushed, and any part of what was not, when the power goes."""

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

Files: TypeAlias = dict[str, bytes | None]
"""The bytes of each file by its path; None of directories."""

_SECTOR = 512  # bytes that are written whole or not at all


@dataclass
class _Node:
    """A file or a directory.

    Attributes:
        content: the bytes of a file that are on the disk.
        names: the nodes of a directory by name, as they are on the disk.
        pending: what is in memory alone: changes of `content` or `names`, in order.
    """

    content: bytes = b""
    names: dict[str, int] | None = None
    pending: list["_Change"] = field(default_factory=list)

    def after(self, changes: Iterable["_Change"]) -> tuple[bytes, dict[str, int] | None]:
        """Content and names after some of the changes."""
        content, names = self.content, self.names
        for change in changes:
            if names is None:
                content = change.on_content(content)
            else:
                names = change.on_names(names)
        return content, names


@dataclass(frozen=True)
class _Change:
    """A change of a file: its size, or bytes from `start`. Of a directory: names and their nodes.

    Attributes:
        start: first byte that is written, or None.
        data: the bytes.
        size: that the file is cut to, or None.
        names: what each name means afterwards, None for nothing more; all at once.
    """

    start: int | None = None
    data: bytes = b""
    size: int | None = None
    names: Mapping[str, int | None] = field(default_factory=dict)

    def on_content(self, content: bytes) -> bytes:
        """The bytes of a file after it."""
        if self.size is not None:
            return content[: self.size].ljust(self.size, b"\0")
        assert self.start is not None
        before = content[: self.start].ljust(self.start, b"\0")
        return before + self.data + content[self.start + len(self.data) :]

    def on_names(self, names: dict[str, int]) -> dict[str, int]:
        """The names in a directory after it."""
        changed: dict[str, int | None] = {**names, **self.names}
        return {name: node for name, node in changed.items() if node is not None}

    def torn(self, chance: random.Random) -> "_Change":
        """The first sectors alone, of what is written."""
        return _Change(
            start=self.start,
            data=self.data[: _SECTOR * chance.randrange(1 + len(self.data) // _SECTOR)],
            size=self.size,
            names=self.names,
        )


class Disk:
    """Files and directories as a process sees them, and as they are on the disk.

    Args:
        root: the directory that is there at the beginning, all of it on the disk.
    """

    def __init__(self, root: Path) -> None:
        self._nodes: dict[int, _Node] = {}
        self._numbers: dict[int, int] = {}  # of the nodes of inodes, which are used again
        self._top = root.stat().st_ino
        for path in (root, *root.rglob("*")):
            number = path.stat().st_ino
            self._numbers[number] = number
            if path.is_dir():
                names = {each.name: each.stat().st_ino for each in path.iterdir()}
                self._nodes[number] = _Node(names=names)
            else:
                self._nodes[number] = _Node(content=path.read_bytes())

    def apply(self, line: str) -> bool:
        """Do what a line of the shim says; gives whether it has changed anything."""
        if not line.startswith("= "):
            return False
        _, inode, what, *rest = line.split(" ")
        path = rest[-1]
        if inode == "0":  # there was nothing of that name
            return False
        if what in ("create", "mkdir"):
            node = self._numbers[int(inode)] = -len(self._nodes)
            self._nodes[node] = _Node(names={} if what == "mkdir" else None)
            self._rename({path: node})
            return True
        node = self._numbers[int(inode)]
        if what == "remove":
            self._rename({path: None})
        elif what == "rename":
            self._rename({path: None, rest[0]: node})
        elif what == "exchange":
            self._rename({path: self._find(rest[0]), rest[0]: node})
        elif what == "write":
            self._nodes[node].pending.append(
                _Change(start=int(rest[0]), data=bytes.fromhex(rest[1]))
            )
        elif what == "truncate":
            self._nodes[node].pending.append(_Change(size=int(rest[0])))
        else:
            assert what == "sync"
            flushed = self._nodes[node]
            flushed.content, flushed.names = flushed.after(flushed.pending)
            flushed.pending = []
        return True

    def after_cut(self, chance: random.Random | None, keeps: bool = False) -> Files:
        """What is on the disk after the power went: all that was pending, none, or by chance."""
        return dict(self._walk(self._top, "", chance, keeps))

    def _walk(
        self, number: int, path: str, chance: random.Random | None, keeps: bool
    ) -> Iterator[tuple[str, bytes | None]]:
        node = self._nodes[number]
        kept = node.pending if keeps else []
        if chance is not None:
            kept = [
                change.torn(chance) if chance.random() < 0.3 else change
                for change in node.pending
                if chance.random() < 0.6
            ]
        content, names = node.after(kept)
        yield path, None if names is not None else content
        for name, each in sorted((names or {}).items()):
            yield from self._walk(each, f"{path}/{name}", chance, keeps)

    def _find(self, path: str) -> int:
        """The node of a path as processes see it."""
        number = self._top
        for name in filter(None, path.split("/")):
            node = self._nodes[number]
            _, names = node.after(node.pending)
            assert names is not None
            number = names[name]
        return number

    def _rename(self, changes: Mapping[str, int | None]) -> None:
        """Change names of one directory at once."""
        (parent,) = {path.rpartition("/")[0] for path in changes}
        names = {path.rpartition("/")[2]: node for path, node in changes.items()}
        self._nodes[self._find(parent)].pending.append(_Change(names=names))


def write_files(files: Files, root: Path) -> None:
    """Make the files of a disk."""
    for path, content in files.items():
        place = root / path.removeprefix("/")
        if content is None:
            place.mkdir(parents=True)
        else:
            place.write_bytes(content)
