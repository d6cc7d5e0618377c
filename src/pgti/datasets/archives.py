"""Single files out of zip archives.

A member is written under a name that the caller chooses, never under the path in the archive: an
untrusted archive cannot write anywhere else.
"""

import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from pgti.errors import DataError, machine_fault

__all__ = ["find_member", "unpack_member"]

_MACOS_FOLDER = "__MACOSX"  # its members have the names of the real ones


def find_member(archive: Path, name: str) -> zipfile.ZipInfo | None:
    """The member whose last part is `name`, in any folder of the archive; None if there is none.

    Raises:
        DataError: if the archive is damaged, or has several of the name.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            found = [
                member
                for member in opened.infolist()
                if PurePosixPath(member.filename).name == name
                and _MACOS_FOLDER not in PurePosixPath(member.filename).parts
                and not member.is_dir()
            ]
    # zipfile raises NotImplementedError for kinds of archives that it does not read.
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise _damaged(archive, error) from error
    if len(found) > 1:
        places = ", ".join(member.filename for member in found[:3])
        raise DataError(f"{archive} has {len(found)} files {name} ({places}): unpack the right one")
    return found[0] if found else None


def unpack_member(archive: Path, member: zipfile.ZipInfo, target: Path) -> None:
    """Write a member to `target`, which must not exist.

    Raises:
        DataError: if it is damaged, encrypted or larger than the archive says, or does not
            fit on the disk.
    """
    free = shutil.disk_usage(target.parent).free
    if member.file_size > free:
        raise DataError(
            f"{member.filename} of {archive.name} has {member.file_size:,} bytes and "
            f"{target.parent} has {free:,} free: make room, or unpack it elsewhere"
        )
    try:
        with (
            zipfile.ZipFile(archive) as opened,
            opened.open(member) as source,
            target.open("xb") as file,
        ):
            shutil.copyfileobj(source, file)
    except (OSError, ValueError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise _damaged(archive, error) from error


def _damaged(archive: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    reason = machine_fault(error) or reason
    return DataError(f"{archive} cannot be unpacked: {reason}")
