"""A copy of a store on a disk of this machine, for a store that lies on a shared file system."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from pgti.errors import StoreError
from pgti.storage import StagedDirectory, file_lock, reraise_os_errors
from pgti.store.meta import META_FILE, StoreMeta, check_target
from pgti.store.store import SeriesStore

__all__ = ["local_copy"]

_FINGERPRINT_DIGITS = 16  # of the fingerprint in a copy's name: 64 bits
_PIECE_BYTES = 1 << 22
_LOCK_FILE = ".pgti.lock"
_SPARE_BYTES = 1 << 26  # left free beside the copy: its description, the directories, the stamp


def local_copy(
    store: str | Path,
    directory: str | Path,
    *,
    log: Callable[[str], None] = lambda _: None,
) -> Path:
    """A verified copy of the store under `directory`, made now or by an earlier call; its path.

    The copy is named after the store and its fingerprint: another version of the store gets a copy
    of its own. Processes that call at the same time wait for the one that copies. Every byte of a
    copy is checked against the parts' SHA-256 when it is made. Later calls do that again only for
    parts that are small, or whose size, modification time or inode are not what they were: these
    are kept in `<copy>.verified.json`, beside it.

    Args:
        store: the store's directory.
        directory: where copies are kept, on a local disk; made if need be.
        log: told, in one line each, what is copied, waited for, reused or replaced.

    Raises:
        StoreError: if the store cannot be opened or is damaged, or the copy cannot be made; a
            copy that was begun is removed then.
    """
    source = SeriesStore.open(store)
    origin = Path(store).resolve()
    suffix = f"-{source.fingerprint[:_FINGERPRINT_DIGITS]}"
    copy = Path(directory) / (origin.name.removesuffix(suffix) + suffix)
    if _damage(copy, source.meta, is_hashed=False) is None:
        log(f"using the local copy {copy}")
        return copy
    with reraise_os_errors(f"the local copy {copy} cannot be made", StoreError):
        copy.parent.mkdir(parents=True, exist_ok=True)
        busy = f"waiting for another process that copies a store to {copy.parent}"
        with file_lock(copy.with_name(_LOCK_FILE), on_busy=lambda: log(busy)):
            damage = _damage(copy, source.meta, is_hashed=True)
            if damage is None:
                log(f"using the local copy {copy}")
                return copy
            if copy.resolve() == origin:  # the store that was given: there is none to replace it
                raise damage
            _remove(copy, log)
            _make(source, copy, log)
            _write_stamp(copy, _state(copy, source.meta))
    return copy


def _damage(copy: Path, meta: StoreMeta, *, is_hashed: bool) -> StoreError | None:
    """Why the copy cannot be used as it is, or None.

    Args:
        copy: the copy's directory.
        meta: the description of the store.
        is_hashed: parts that are not as their stamp says are hashed; else they count as damaged.
    """
    try:
        opened = SeriesStore.open(copy)
        if opened.fingerprint != meta.fingerprint:
            return StoreError(f"{copy} holds another store")
        state = _state(copy, meta)  # before hashing: what changes meanwhile is seen the next time
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
    """Remove a damaged copy: a local disk may have no room for two."""
    if os.path.lexists(copy):
        log(f"the local copy {copy} is damaged: it is replaced")
        shutil.rmtree(copy)
        _stamp(copy).unlink(missing_ok=True)


def _make(source: SeriesStore, copy: Path, log: Callable[[str], None]) -> None:
    """Copy the parts under a temporary name, check them and give the copy its name."""
    with reraise_os_errors(f"the store {source.path} cannot be read", StoreError):
        needed = sum((source.path / part).stat().st_size for part in source.meta.parts)
    may_replace = partial(check_target, overwrite=True)
    # Entering makes room, if a killed process left a part of this copy.
    with StagedDirectory(copy, check_target=may_replace, overwrite=True) as staged:
        free = shutil.disk_usage(staged.path).free
        if free < needed + _SPARE_BYTES:
            raise StoreError(
                f"a local copy of {source.path} needs {(needed + _SPARE_BYTES) / 2**30:,.2f} GiB "
                f"and {copy.parent} has {free / 2**30:,.2f} GiB free: make room or choose another "
                "directory"
            )
        log(f"copying {needed / 2**30:,.2f} GiB from {source.path} to {copy}")
        for part, digest in source.meta.parts.items():
            if _copy_part(source.path / part, staged.path / part) != digest:
                raise StoreError(
                    f"the store {source.path} is damaged: {part} does not match its SHA-256; "
                    "ingest it again"
                )
        (staged.path / META_FILE).write_text(source.meta.to_json(), encoding="utf-8")
        staged.publish()


def _copy_part(source: Path, target: Path) -> str:
    """Copy a file; returns the SHA-256 of what was copied."""
    digest = hashlib.sha256()
    with target.open("xb") as file:
        for piece in _pieces(source):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    with reraise_os_errors(f"{path} cannot be read", StoreError), path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _stamp(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.verified.json")


def _state(copy: Path, meta: StoreMeta) -> bytes:
    """What changes when a part is written to or replaced, as it stands in the stamp."""
    found = {part: (copy / part).stat() for part in sorted(meta.parts)}
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
    """Write down what was verified. One that is torn is unlike any state and leads to hashing."""
    with suppress(OSError):  # a directory of someone else's: its copies are hashed each time
        _stamp(copy).write_bytes(state)
