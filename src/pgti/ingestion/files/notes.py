"""What a user should know of several files that were joined."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from pgti.display import count_of, shorten
from pgti.errors import option
from pgti.ingestion.files.kinds import OpenedFile, stem_of
from pgti.ingestion.files.merging import Merge
from pgti.ingestion.options import FilesKind, IngestOptions

__all__ = ["notes_of_files", "notes_of_rows", "union_of"]


def notes_of_files(
    files: Sequence[OpenedFile],
    kind: FilesKind,
    options: IngestOptions,
) -> tuple[str, ...]:
    """What the files are taken for, one line each."""
    own = tuple(_own_notes(files))
    if len(files) == 1:
        return own
    names = [each.readings.name for each in files]
    stems = shorten([stem_of(each.name) for each in files])
    hint = "" if options.files else f"; {option('files')} says otherwise"
    channels = shorten(files[0].readings.channels or ())
    first = {
        "times": f"{len(files):,} files are joined by their times, from {names[0]} to {names[-1]}",
        "sensors": f"each of {len(files):,} files is a sensor ({stems}), and its columns are the "
        f"channels {channels}{hint}",
        "channels": f"each of {len(files):,} files is a channel ({stems}), and its columns are "
        f"sensors{hint}",
    }[kind]
    lines = [first]
    for what, every in (
        ("sensors", [each.readings.node_ids for each in files] if kind != "sensors" else []),
        ("channels", [each.readings.channels for each in files] if kind != "channels" else []),
    ):
        lines += _lacks(what, names, every)
    return (*lines, *own)


def _lacks(
    what: str, names: Sequence[str], every: Sequence[tuple[str, ...] | None]
) -> Iterator[str]:
    """Lines about files that lack sensors or channels, or have them in another order."""
    known = union_of(every)
    if known is None:
        return
    lacking = [
        (name, [each for each in known if each not in set(own or ())])
        for name, own in zip(names, every, strict=True)
    ]
    lacking = [(name, absent) for name, absent in lacking if absent]
    if lacking and len(known) == sum(len(own or ()) for own in every):
        yield f"each file has {what} of its own"
    elif lacking:
        name, absent = lacking[0]
        yield (
            f"{len(lacking):,} of {len(names):,} files lack {what} that others have, the first "
            f"{name} ({shorten(absent)}): they are missing there"
        )
    order = {name: place for place, name in enumerate(known)}
    mixed = [
        name
        for name, own in zip(names, every, strict=True)
        if any(a > b for a, b in pairwise([order[each] for each in own or ()]))
    ]
    if mixed:
        yield f"{mixed[0]} has its {what} in another order: they are matched by name"


def _own_notes(files: Sequence[OpenedFile]) -> Iterator[str]:
    """Their own notes, the first of those that differ in names and numbers alone."""
    known = set()
    for each in files:
        for note in each.readings.notes:
            kind = re.sub(r"\([^)]*\)|\d[\d.,]*", "", note.replace(each.readings.name, ""))
            if kind not in known:
                known.add(kind)
                yield note


def notes_of_rows(
    files: Sequence[OpenedFile], kind: FilesKind, merge: Merge, options: IngestOptions
) -> tuple[str, ...]:
    """What joining the rows showed, one line each."""
    lines = [note for each in files[:3] for note in each.readings.late_notes()]
    if merge.num_repeated:
        taken = {
            "error": "they agree and were taken once",
            "mean": "their mean was taken",
        }.get(options.duplicates, f"the {options.duplicates} was taken")
        lines.append(f"{count_of(merge.num_repeated, 'reading')} stand in several files: {taken}")
    short = [number for number in merge.rows_of if merge.rows_of[number] < merge.num_rows]
    if kind != "times" and short:
        name = files[short[0]].readings.name
        lines.append(
            f"{len(short):,} of {len(files):,} files lack rows that others have, the first {name} "
            f"({merge.rows_of[short[0]]:,} of {merge.num_rows:,}): they are missing there"
        )
    return tuple(lines)


def union_of(names: Sequence[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """All names in the order in which they appear; None without names."""
    known = [each for each in names if each is not None]
    return tuple(dict.fromkeys(name for each in known for name in each)) if known else None
