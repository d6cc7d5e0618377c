"""Files that a user names: no device and no pipe, and no more bytes than such a file has."""

import stat
from pathlib import Path

from pgti.errors import PgtiError
from pgti.storage.atomic import reraise_os_errors

__all__ = ["check_is_file", "read_small_file"]

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_is_file(path: Path, what: str, error_type: type[PgtiError]) -> None:
    """Refuse a path of anything but a file: a device has no end, and a pipe is waited for.

    Args:
        path: that the user names.
        what: what messages call it.
        error_type: of what is raised.

    Raises:
        PgtiError: saying what it is.
    """
    with reraise_os_errors(f"{what} cannot be read", error_type):
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            raise error_type(f"{what} does not exist: check the path") from None
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), None)
    if kind is not None:
        raise error_type(f"{what} is {kind}: give a file")


def read_small_file(path: Path, what: str, max_bytes: int, error_type: type[PgtiError]) -> bytes:
    """The bytes of a file, which is no device and no pipe.

    Args:
        path: the file.
        what: what messages call it.
        max_bytes: more than such a file ever has.
        error_type: of what is raised.

    Raises:
        PgtiError: if it is no file, has more bytes or cannot be read.
    """
    check_is_file(path, what, error_type)
    with reraise_os_errors(f"{what} cannot be read", error_type), path.open("rb") as file:
        content = file.read(max_bytes + 1)  # files of /proc do not say their size
    if len(content) > max_bytes:
        raise error_type(
            f"{what} has more than {max_bytes >> 20} MiB, which is the most that is read: give "
            "the file that is meant"
        )
    return content
