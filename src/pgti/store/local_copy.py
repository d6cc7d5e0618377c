"""Verified copies of stores on a local disk, for stores on a shared file system."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from pgti.display import size_text
from pgti.errors import StoreError
from pgti.storage import StagedDirectory, file_lock, reraise_os_errors
from pgti.store.meta import FUTURE_FILE, META_FILE, StoreMeta
from pgti.store.parts import committed_bytes, write_headers
from pgti.store.store import SeriesStore
from pgti.store.target import check_target

__all__ = ["local_copy"]

_FINGERPRINT_DIGITS = 16  # in a copy's name: 64 bits
_PIECE_BYTES = 1 << 22
_LOCK_FILE = ".pgti.lock"
_SPARE_BYTES = 1 << 26  # to leave free beside the copy: its description, directories, the stamp


def local_copy(
    store: str | Path,
    directory: str | Path,
    *,
    log: Callable[[str], None] = lambda _: None,
) -> Path:
    """Path of a verified copy of the store under `directory`, made by this or an earlier call.

    The copy is named after the store and its fingerprint, so that another version of the store gets
    another copy. Of several processes that call this at once, one copies and the others wait. A new
    copy is checked byte by byte against the parts' SHA-256. Later calls check small parts again,
    and others if their size, modification time or inode have changed since: `<copy>.verified.json`
    beside the copy records them.

    Args:
        store: the store's directory.
        directory: where copies are stored, on a local disk; created if missing.
        log: called with a line for each copy, wait, reuse or replacement.

    Raises:
        StoreError: if the store cannot be opened or is damaged, or the copy cannot be created; an
            unfinished copy is removed.
    """
    source = SeriesStore.open(store)
    origin = Path(store).resolve()
    suffix = f"-{source.fingerprint[:_FINGERPRINT_DIGITS]}"
    copy = Path(directory) / (origin.name.removesuffix(suffix) + suffix)
    if _find_damage(copy, source.meta, is_hashed=False) is None:
        log(f"using the local copy {copy}")
        return copy
    with reraise_os_errors(f"the local copy {copy} cannot be created", StoreError):
        copy.parent.mkdir(parents=True, exist_ok=True)
        busy = f"waiting for another process that copies a store to {copy.parent}"
        with file_lock(copy.with_name(_LOCK_FILE), on_busy=lambda: log(busy)):
            damage = _find_damage(copy, source.meta, is_hashed=True)
            if damage is None:
                log(f"using the local copy {copy}")
                return copy
            if copy.resolve() == origin:  # the store is the copy: nothing can replace it
                raise damage
            _remove(copy, log)
            _make(source, copy, log)
            _write_stamp(copy, _state(copy, source.meta))
    return copy


def _find_damage(copy: Path, meta: StoreMeta, *, is_hashed: bool) -> StoreError | None:
    """Why the copy cannot be used, or None; `is_hashed` hashes parts unlike their stamp."""
    try:
        opened = SeriesStore.open(copy)
        is_same = opened.meta.parts.get(FUTURE_FILE) == meta.parts.get(FUTURE_FILE)
        if opened.fingerprint != meta.fingerprint or not is_same:
            return StoreError(f"{copy} contains another store")
        state = _state(copy, meta)  # before hashing: the next call sees what changes meanwhile
        if state == _read_stamp(copy):
            return None
        if not is_hashed:
            return StoreError(f"{copy} has changed since it was verified")
        opened.verify()
    except StoreError as error:
        return error
    except OSError as error:
        return StoreError(f"{copy} cannot be read: {error.strerror or error}")
    _write_stamp(copy, state)
    return None


def _remove(copy: Path, log: Callable[[str], None]) -> None:
    """Remove a copy that is damaged or older first: a local disk may lack the space for two."""
    if os.path.lexists(copy):
        log(f"replacing the local copy {copy}, which is damaged or older")
        shutil.rmtree(copy)
        _stamp(copy).unlink(missing_ok=True)


def _make(source: SeriesStore, copy: Path, log: Callable[[str], None]) -> None:
    """Copy the parts under a temporary name, check them and rename the copy."""
    files = {part: committed_bytes(source.path, source.meta, part) for part in source.meta.parts}
    needed = sum(files.values())
    may_replace = partial(check_target, overwrite=True)
    # Entering frees the space of a copy that a killed process left unfinished.
    with StagedDirectory(copy, check_target=may_replace, overwrite=True) as staged:
        free = shutil.disk_usage(staged.path).free
        if free < needed + _SPARE_BYTES:
            raise StoreError(
                f"a local copy of {source.path} needs {size_text(needed + _SPARE_BYTES)} "
                f"and {copy.parent} has {size_text(free)} free: free some space or choose "
                "another directory"
            )
        log(f"copying {size_text(needed)} from {source.path} to {copy}")
        for part, num_bytes in files.items():
            name = source.meta.file_of(part)
            _copy_file(source.path / name, staged.path / name, num_bytes)
        write_headers(staged.path, source.meta)
        (staged.path / META_FILE).write_text(source.meta.to_json(), encoding="utf-8")
        try:
            SeriesStore.open(staged.path, verify_up_to_bytes=0).verify()
        except StoreError as error:
            raise StoreError(str(error).replace(str(staged.path), str(source.path))) from None
        staged.publish()


def _copy_file(source: Path, target: Path, num_bytes: int) -> None:
    """Copy the first bytes of a file."""
    problem = f"{source} cannot be copied"
    with (
        reraise_os_errors(problem, StoreError),
        source.open("rb") as file,
        target.open("xb") as copy,
    ):
        while num_bytes and (piece := file.read(min(_PIECE_BYTES, num_bytes))):
            num_bytes -= len(piece)
            copy.write(piece)


def _stamp(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.verified.json")


def _state(copy: Path, meta: StoreMeta) -> bytes:
    """The stamp's content: what changes when a part is written to or replaced."""
    names = sorted(meta.file_of(part) for part in meta.parts)
    found = {name: (copy / name).stat() for name in names}
    state = {
        part: {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "inode": stat.st_ino}
        for part, stat in found.items()
    }
    return json.dumps(state, indent=1).encode()


def _read_stamp(copy: Path) -> bytes | None:
    with suppress(OSError):
        return _stamp(copy).read_bytes()
    return None


def _write_stamp(copy: Path, state: bytes) -> None:
    """Record what was verified; a half-written stamp equals no state and leads to hashing."""
    with suppress(OSError):  # without write access every call hashes the copy
        _stamp(copy).write_bytes(state)
