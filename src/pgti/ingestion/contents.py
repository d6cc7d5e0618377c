"""What a file is, by its first bytes, where it is not what its name says."""

import re
from pathlib import Path

from pgti.errors import DataError

__all__ = ["NoRowsError", "check_contents"]

_BEGINNING = 2048
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LFS_SIZE = re.compile(rb"^size (\d+)$", re.MULTILINE)
_WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<(!doctype )?html\b",
                       re.IGNORECASE | re.DOTALL)  # fmt: skip
_NOT_FOUND = re.compile(rb"\s*(404: Not Found|404 Not Found|Not Found|Access Denied)\s*")


class NoRowsError(DataError):
    """A source of readings without a row, which may be right otherwise."""


def check_contents(path: Path) -> None:
    """Refuse what downloads and git leave in place of a file: a pointer, a web page, or nothing.

    Raises:
        DataError: saying which of them it is, and how to get the file itself.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING)
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror or error}") from None
    if not beginning:
        raise DataError(f"{path.name} is empty (0 bytes): download or write it again")
    if beginning.startswith(_LFS_POINTER):
        size = _LFS_SIZE.search(beginning)
        of = f" of {int(size[1]):,} bytes" if size and len(size[1]) < 20 else ""
        raise DataError(
            f"{path.name} is a Git LFS pointer in place of the file{of}: get it with `git lfs "
            "pull`, or download it from the page of its repository"
        )
    if _WEB_PAGE.match(beginning):
        raise DataError(
            f"{path.name} is a web page (HTML) in place of data, as a download that asks to sign "
            "in, to confirm or to wait leaves it: open the link in a browser, and save the file "
            "itself"
        )
    if len(beginning) < 64 and _NOT_FOUND.fullmatch(beginning):
        raise DataError(
            f"{path.name} holds {beginning.decode().strip()!r}, the answer of a server in place of "
            "the file: correct the link, and download it again"
        )
