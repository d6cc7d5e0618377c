"""Inputs and targets of windows in archives, by the names that people use."""

from dataclasses import dataclass
from pathlib import Path

from pgti.ingestion.arrays.npy import Headers

__all__ = ["WindowPair", "find_windows", "window_files"]

_SPLITS = {
    "train": 0,
    **dict.fromkeys(("val", "valid", "validation", "dev"), 1),
    **dict.fromkeys(("test", "eval"), 2),
}
_INPUTS, _TARGETS = ("x", "input", "inputs"), ("y", "target", "targets", "label", "labels")


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowPair:
    """Inputs and targets of one split in an archive.

    Attributes:
        path: of the archive.
        inputs: key of x.
        targets: key of y.
        shapes: of both, [S, ...].
        order: 0 for training, 1 for validation, 2 for test windows.
    """

    path: Path
    inputs: str
    targets: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    order: int

    @property
    def name(self) -> str:
        """What messages call the windows."""
        return f"{self.inputs} and {self.targets} of {self.path.name}"


def find_windows(path: Path, headers: Headers) -> list[WindowPair]:
    """Pairs of inputs and targets in an archive, in the order of time; none if it has others."""
    found: dict[int, dict[str, str]] = {}
    by_file = next((order for word, order in _SPLITS.items() if word in _words(path.stem)), 0)
    for key, header in headers.items():
        words = _words(key)
        split = [_SPLITS[word] for word in words if word in _SPLITS]
        rest = [word for word in words if word not in _SPLITS]
        if len(split) > 1 or len(rest) != 1 or len(header.shape) not in (3, 4):
            continue
        for role, names in (("x", _INPUTS), ("y", _TARGETS)):
            if rest[0] in names and header.dtype.kind in "iuf":
                found.setdefault(split[0] if split else by_file, {})[role] = key
    pairs = [
        WindowPair(
            path=path,
            inputs=keys["x"],
            targets=keys["y"],
            shapes=(headers[keys["x"]].shape, headers[keys["y"]].shape),
            order=order,
        )
        for order, keys in sorted(found.items())
        if len(keys) == 2
    ]
    return [pair for pair in pairs if pair.shapes[0][0] == pair.shapes[1][0] > 0]


def window_files(directory: Path) -> tuple[Path, ...]:
    """The archives `train.npz`, `val.npz` and `test.npz` of a directory, as far as they exist."""
    names = sorted(_SPLITS, key=lambda word: _SPLITS[word])
    paths = (directory / f"{name}.npz" for name in names)
    return tuple(path for path in paths if path.is_file())


def _words(text: str) -> list[str]:
    return text.lower().replace("-", "_").split("_")
