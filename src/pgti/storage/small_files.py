"""Files that are read whole: no device, no pipe, and no more bytes than such a file has."""

import stat
from pathlib import Path

from pgti.errors import PgtiError
from pgti.storage.atomic import reraise_os_errors

__all__ = ["read_small_file"]

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def read_small_file(path: Path, what: str, max_bytes: int, error_type: type[PgtiError]) -> bytes:
    """The bytes of a file that a user names.

    Args:
        path: the file.
        what: what messages call it.
        max_bytes: more than such a file ever has.
        error_type: of what is raised.

    Raises:
        PgtiError: if it is no regular file, has more bytes or cannot be read; a pipe is not
            waited for.
    """
    with reraise_os_errors(f"{what} cannot be read", error_type):
        status = path.stat()
        kind = next((name for is_kind, name in _KINDS if is_kind(status.st_mode)), None)
        if kind is not None:
            raise error_type(f"{what} is {kind}: give a file")
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)  # files of /proc do not say their size
    if len(content) > max_bytes:
        raise error_type(
            f"{what} has more than {max_bytes >> 20} MiB, which is the most that is read: give "
            "the file that is meant"
        )
    return content
