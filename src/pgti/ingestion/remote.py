"""Sources that are elsewhere, by URL: `s3://`, `https://` and whatever fsspec knows.

Zarr stores are read in place; of any other file a copy is made beside the store, and removed when
it has been read. Who may read is what fsspec finds (environment, its configuration files); messages
and stores show the last part of a URL alone, which has no user, password or signature.
"""

import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pgti.errors import PARSER_ERRORS, DataError, MissingExtraError, PgtiError, StoreError
from pgti.ingestion.scratch import call_after_scratch, scratch_directory
from pgti.storage import reraise_os_errors

__all__ = ["as_url", "copy_of", "is_zarr_url", "name_of", "reraise_remote_errors"]

# A path shortens "://" to ":/"; one letter before it is a drive of Windows.
_URL = re.compile(r"((?:[a-z][a-z0-9+]+::)*(?!file:)[a-z][a-z0-9+.]+):/{1,2}([^/].*)", re.DOTALL)
_ANY_URL = re.compile(r"[a-z][a-z0-9+.]*://\S+", re.IGNORECASE)
_COPY_BYTES = 1 << 20
_LIBRARIES = {"s3": "s3fs", "s3a": "s3fs", "http": "aiohttp", "https": "aiohttp", "gs": "gcsfs"}


def as_url(source: object) -> str | None:
    """The URL that a source is, if it is one; a path on this machine comes first."""
    if not isinstance(source, Path | str):
        return None
    match = _URL.fullmatch(str(source))
    if match is None or (isinstance(source, Path) and source.exists()):
        return None
    return f"{match[1]}://{match[2]}"


def name_of(url: str) -> str:
    """What messages call a URL: its last part, without a query, a user or a signature."""
    path = re.split(r"[?#]", url, maxsplit=1)[0].rstrip("/")
    return path.rpartition("/")[2].rpartition("@")[2] or "the URL"


def is_zarr_url(url: str) -> bool:
    """Whether a URL is that of a Zarr store, which is a directory."""
    suffix = Path(name_of(url)).suffix.lower()
    return suffix in (".zarr", "")


@contextmanager
def reraise_remote_errors(url: str) -> Iterator[None]:
    """Turn what fsspec raises into an error in one line, without what is secret in a URL.

    Raises:
        DataError: if there is no such file, or the server does not give it.
        MissingExtraError: if the library of the protocol is not installed.
    """
    name = name_of(url)
    try:
        yield
    except PgtiError:
        raise
    except FileNotFoundError:
        raise DataError(f"{name} does not exist: check the URL") from None
    except ImportError as error:
        scheme = url.partition("://")[0].rpartition("::")[2]
        library = "fsspec" if error.name == "fsspec" else _LIBRARIES.get(scheme, "fsspec")
        raise MissingExtraError(library, "remote") from None
    except PARSER_ERRORS as error:
        reason = _ANY_URL.sub(name, " ".join(str(error).replace(url, name).split()))[:200]
        raise DataError(f"{name} cannot be read: {reason or type(error).__name__}") from None
    except Exception as error:
        # Of libraries that need not be installed: aiohttp's ClientError, botocore's.
        if type(error).__module__.split(".")[0] not in ("aiohttp", "botocore", "fsspec", "gcsfs"):
            raise
        raise DataError(f"{name} cannot be read: {type(error).__name__}") from None


def copy_of(url: str) -> Path:
    """A copy of a file beside the store, which is removed when it has been read.

    Raises:
        DataError: see `reraise_remote_errors`.
        MissingExtraError: if the library of the protocol is not installed.
        StoreError: if there is no room for it.
    """
    name = name_of(url)
    with reraise_remote_errors(url):
        import fsspec  # noqa: PLC0415 - an optional library

        remote: Any = fsspec.open(url, "rb")
        with remote as file:
            directory = Path(tempfile.mkdtemp(prefix=".fetched-", dir=scratch_directory()))
            remove = weakref.finalize(as_url, shutil.rmtree, directory, ignore_errors=True)
            call_after_scratch(remove)
            size = getattr(file, "size", None) or 0
            room = shutil.disk_usage(directory).free
            if size > room:
                raise StoreError(f"{name} has {size:,} bytes and there is room for {room:,}")
            with (
                reraise_os_errors(f"{name} cannot be copied", StoreError),
                (directory / name).open("wb") as copy,
            ):
                shutil.copyfileobj(file, copy, _COPY_BYTES)
    return directory / name
