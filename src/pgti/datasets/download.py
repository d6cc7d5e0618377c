"""Downloading one file over HTTPS, resuming where an earlier attempt stopped.

What has arrived is in `NAME.part`; `NAME.part.json` says of which version of which file it is. The
request for the rest carries the entity tag (or date) of the first answer as `If-Range`, so a file
that has changed meanwhile arrives whole. A part is joined only if its answer bears the same tag (or
date) and continues where the first one ended; otherwise the file is downloaded from its beginning.
"""

import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from http import HTTPStatus
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from pgti.datasets.dataset import Download
from pgti.datasets.partial import FileVersion, content_range
from pgti.errors import FetchError, MissingExtraError, option

__all__ = ["ResumingDownloader", "import_pooch"]

_CHUNK_BYTES = 1 << 18
_PROGRESS_BYTES = 1 << 20  # that renew the patience with a server
_LINES = 100  # of a chunked body without a byte between them
_TIMEOUT_SECONDS = (10, 60)  # for a connection, and for the next bytes
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_SIGNATURES = {".zip": b"PK", ".npz": b"PK", ".h5": b"\x89HDF\r\n\x1a\n"}
_POOL = re.compile(r"^\w*Connection(Pool)?\([^)]*\): ")  # repeats the host
_PAGE = "a web page arrived in place of the file"

Response = Any  # requests has no types
Span = tuple[int | None, int | None]  # where what arrives ends, and the whole file


def import_pooch() -> Any:
    """The library that caches downloads.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        import pooch  # noqa: PLC0415 - an optional library
    except ImportError:
        raise MissingExtraError("pooch", "datasets") from None
    return pooch


class _Interrupted(Exception):  # noqa: N818 - the caller decides whether it is an error
    """The connection failed or ended; what had arrived stays."""

    def __init__(self, reason: str, *, can_retry: bool) -> None:
        super().__init__(reason)
        self.can_retry = can_retry


class ResumingDownloader:
    """A downloader for pooch, which calls it with a URL and the file to write.

    Args:
        download: the file.
        part: where bytes are collected; no other process may write there meanwhile.
        advice: what a user can do if it fails; it ends every message.
        progress: called with the bytes that have arrived and, where known, their total.
        max_attempts: attempts that may fail before another MiB has arrived.
        wait_seconds: pause before the second attempt; later ones wait as many times longer.
    """

    def __init__(
        self,
        download: Download,
        part: Path,
        advice: str,
        progress: Callable[[int, int | None], None] | None = None,
        *,
        max_attempts: int = 5,
        wait_seconds: float = 1.0,
    ) -> None:
        self._download = download
        self._part = part
        self._note = part.with_name(f"{part.name}.json")
        self._advice = advice
        self._progress = progress
        self._max_attempts = max_attempts
        self._wait_seconds = wait_seconds
        self._has_begun = False
        self._can_join = True

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Write `output_file`.

        Raises:
            FetchError: if the server cannot be reached or trusted, answers with an error or a
                page, or the connection fails repeatedly. A part that can be resumed stays.
        """
        furthest, num_failed = 0, 0
        while True:
            try:
                self._resume(url)
                break
            except _Interrupted as reason:
                num_failed += 1
                if self._size() >= furthest + _PROGRESS_BYTES:
                    furthest, num_failed = self._size(), 1
                if not reason.can_retry or num_failed == self._max_attempts:
                    raise self._failure(str(reason)) from reason
                time.sleep(self._wait_seconds * num_failed)
        self._check_content()
        self._part.replace(output_file)
        self._note.unlink(missing_ok=True)

    def _resume(self, url: str) -> None:
        """Request what is missing, and receive it."""
        version, offset = self._known_part(url)
        if version is not None and offset == version.total:
            return  # a process that died between the last byte and the renaming
        headers = {"Accept-Encoding": "identity", "User-Agent": f"pgti/{version_of('pgti')}"}
        if version is not None and version.validator is not None and self._can_join:
            headers |= {"Range": f"bytes={offset}-", "If-Range": version.validator}
        with self._request(url, headers) as response:
            self._check_answer(response)
            if response.status_code == HTTPStatus.PARTIAL_CONTENT:
                asked = version if "Range" in headers else None
                span = self._continue(response.headers, asked, offset)
            else:
                offset, span = 0, self._begin(url, response.headers)
            self._receive(response, offset, *span)

    def _known_part(self, url: str) -> tuple[FileVersion | None, int]:
        """The version whose part can be resumed, and its size; None and 0 if there is none."""
        version, size = FileVersion.read(self._note), self._size()
        if version is None or version.url != url or version.validator is None or size == 0:
            return None, 0
        fits = version.total is None or size <= version.total
        return (version, size) if fits else (None, 0)

    def _request(
        self, url: str, headers: Mapping[str, str]
    ) -> AbstractContextManager[Response, None]:
        import requests  # noqa: PLC0415 - comes with pooch
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        def end_redirect(response: Response, **_: object) -> None:
            if response.is_redirect:
                response.close()  # requests would read its body, which may have no end

        try:
            response: AbstractContextManager[Response, None] = requests.get(
                url,
                headers=headers,
                stream=True,
                timeout=_TIMEOUT_SECONDS,
                hooks={"response": end_redirect},
            )
        except requests.exceptions.SSLError as error:
            raise self._failure(f"its certificate is not trusted ({_short(error)})") from error
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
            reason = f"there is no connection ({_short(error)})"
            raise _Interrupted(reason, can_retry=self._has_begun) from error
        # Addresses that redirects lead to raise other errors, too.
        except (requests.exceptions.RequestException, HTTPError, ValueError) as error:
            raise self._failure(_short(error)) from error
        return response

    def _check_answer(self, response: Response) -> None:
        """Refuse an answer that is not to be trusted or not a file."""
        hops = [each.url for each in (*response.history, response)]
        if hops[0].startswith("https:") and not all(hop.startswith("https:") for hop in hops):
            raise self._failure(f"it leads to {hops[-1][:100]}, which is not https")
        status = response.status_code
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._discard()
            raise _Interrupted("the stored part does not belong to the file", can_retry=True)
        if status in _RETRIED:
            raise _Interrupted(f"the server answers {status} {response.reason}", can_retry=True)
        if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise self._failure(f"the server answers {status} {response.reason}")
        if response.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise self._failure(_PAGE)
        for name, known in (("Content-Encoding", ""), ("Transfer-Encoding", "chunked")):
            coding = response.headers.get(name, "")
            if coding.lower() not in ("", "identity", known):
                raise self._failure(f"its {name} is {coding[:40]!r}, which was not asked for")

    def _begin(self, url: str, headers: Mapping[str, str]) -> Span:
        """Discard any earlier part, and note what the new one belongs to."""
        self._discard()
        try:
            version = FileVersion.of(url, headers)
        except ValueError as error:
            raise self._failure(str(error)) from None
        self._part.write_bytes(b"")
        version.write(self._note)
        return version.total, version.total

    def _continue(
        self, headers: Mapping[str, str], version: FileVersion | None, offset: int
    ) -> Span:
        """Go on with the part.

        Raises:
            _Interrupted: unless what arrives is of the version asked for, and begins at `offset`.
        """
        try:
            found = content_range(headers)
        except ValueError:
            found = None
        if version is not None and found is not None and version.is_of(headers):
            first, end, total = found
            if first == offset and version.total in (None, total):
                return end, total
        self._discard()
        self._can_join = False
        raise _Interrupted("another part arrived than was asked for", can_retry=True)

    def _receive(self, response: Response, size: int, end: int | None, total: int | None) -> None:
        """Append the body to the part, which has `size` bytes and then has `end`, of `total`.

        Raises:
            _Interrupted: if the body ends too early.
        """
        import requests  # noqa: PLC0415 - as above
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        self._has_begun = True
        limit = self._limit(size, end, total)
        if response.raw.chunked:
            response.raw._fp.fp = _ChunkedBody(response.raw._fp.fp)
        try:
            with self._part.open("ab") as file:
                for chunk in response.iter_content(_CHUNK_BYTES):
                    size += len(chunk)
                    if size > limit:
                        self._discard()
                        announced = "no size" if end is None else f"{end:,}"
                        raise self._failure(
                            f"{size:,} bytes arrived and the server announced {announced}"
                        )
                    file.write(chunk)
                    if self._progress is not None:
                        self._progress(size, total)
        except (requests.exceptions.RequestException, HTTPError, ValueError) as error:
            raise _Interrupted("the connection ended", can_retry=True) from error
        except OSError as error:
            raise self._failure(f"{self._part} cannot be written ({error.strerror})") from error
        if total is not None and size < total:
            raise _Interrupted("the connection ended", can_retry=True)

    def _limit(self, size: int, end: int | None, total: int | None) -> int:
        """The size of the part beyond which the answer is refused: without any, half of the room.

        Raises:
            FetchError: if there is no room for the file.
        """
        free = shutil.disk_usage(self._part.parent).free
        if total is not None and total - size > free:
            raise FetchError(
                f"{self._download.name} needs {total - size:,} bytes more and "
                f"{self._part.parent} has {free:,} free: make room, or choose another place "
                f"with {option('cache')}"
            )
        return size + free // 2 if end is None else end

    def _check_content(self) -> None:
        """Refuse and discard a page in place of the file, and another kind of file."""
        with self._part.open("rb") as file:
            head = file.read(512)
        is_page = head.lstrip().lower().startswith((b"<!doctype html", b"<html"))
        signature = _SIGNATURES.get(Path(self._download.name).suffix, b"")
        if is_page or not head or not head.startswith(signature):
            self._discard()
            begins = f"what arrived begins with {head[:8]!r}, unlike such a file"
            raise self._failure(_PAGE if is_page else begins)

    def _failure(self, reason: str) -> FetchError:
        _, size = self._known_part(self._download.url)
        if not size:
            self._discard()
        resumable = f", {size:,} bytes have arrived and stay" if size else ""
        return FetchError(
            f"{self._download.name} could not be downloaded from {self._download.url}: "
            f"{reason}{resumable}; try again later, or {self._advice}"
        )

    def _size(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _discard(self) -> None:
        # The note first: a part without one is never resumed.
        self._note.unlink(missing_ok=True)
        self._part.unlink(missing_ok=True)


class _ChunkedBody:
    """The file of a chunked body: chunks of negative length would be read without an end."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._num_lines = 0  # since the last bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int) -> bytes:
        if size < 0:
            raise ValueError("a chunk has a negative length")
        self._num_lines = 0
        content: bytes = self._file.read(size)
        return content

    def readline(self, size: int = -1) -> bytes:
        self._num_lines += 1
        if self._num_lines > _LINES:
            raise ValueError("the lines behind the last chunk have no end")
        line: bytes = self._file.readline(size)
        return line


def _short(error: Exception) -> str:
    """The innermost reason of an error of requests, in a few words."""
    reason: object = error
    while isinstance(reason, BaseException):
        inner = getattr(reason, "reason", None) or (reason.args[0] if reason.args else None)
        if not isinstance(inner, BaseException):
            break
        reason = inner
    text = " ".join(str(reason).split()) or type(reason).__name__
    return _POOL.sub("", text)[:120]
