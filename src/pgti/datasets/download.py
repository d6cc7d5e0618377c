"""Downloading one file over HTTPS, resuming where an earlier attempt stopped.

What has arrived is in `NAME.part`; `NAME.part.json` identifies the file that it is part of. The
request for the rest carries the entity tag (or date) of the first answer as `If-Range`, so a file
that has changed meanwhile arrives whole. Without tag and date nothing can be joined safely, and the
file is downloaded again.
"""

import json
import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pgti.datasets.dataset import Download
from pgti.errors import FetchError, MissingExtraError, option

__all__ = ["ResumingDownloader", "import_pooch"]

_CHUNK_BYTES = 1 << 18
_TIMEOUT_SECONDS = (10, 60)  # for a connection, and for the next bytes
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_SIGNATURES = {".zip": b"PK", ".npz": b"PK", ".h5": b"\x89HDF\r\n\x1a\n"}
_POOL = re.compile(r"^\w*Connection(Pool)?\([^)]*\): ")  # repeats the host
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_PAGE = "a web page arrived in place of the file"

Response = Any  # requests has no types


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


@dataclass(frozen=True, slots=True)
class _Whole:
    """The file that a part belongs to."""

    url: str
    validator: str | None
    total: int | None


class ResumingDownloader:
    """A downloader for pooch, which calls it with a URL and the file to write.

    Args:
        download: the file.
        part: where bytes are collected; no other process may write there meanwhile.
        advice: what a user can do if it fails; it ends every message.
        progress: called with the bytes that have arrived and, where known, their total.
        max_attempts: consecutive attempts without a new byte before it fails.
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
                num_failed = 1 if self._size() > furthest else num_failed + 1
                furthest = max(furthest, self._size())
                if not reason.can_retry or num_failed == self._max_attempts:
                    raise self._failure(str(reason)) from reason
                time.sleep(self._wait_seconds * num_failed)
        self._check_content()
        self._part.replace(output_file)
        self._note.unlink(missing_ok=True)

    def _resume(self, url: str) -> None:
        """Request what is missing, and receive it."""
        part, offset = self._known_part(url)
        if part is not None and offset == part.total:
            return  # a process that died between the last byte and the renaming
        headers = {"Accept-Encoding": "identity", "User-Agent": f"pgti/{version('pgti')}"}
        if part is not None and part.validator is not None:
            headers |= {"Range": f"bytes={offset}-", "If-Range": part.validator}
        with self._request(url, headers) as response:
            self._check_answer(response)
            if part is None or response.status_code != HTTPStatus.PARTIAL_CONTENT:
                part, offset = self._begin(url, response), 0
            elif not _continues(response.headers, offset, part.total):
                self._discard()
                raise _Interrupted("another part arrived than was requested", can_retry=True)
            free = shutil.disk_usage(self._part.parent).free
            if part.total is not None and part.total - offset > free:
                raise FetchError(
                    f"{self._download.name} needs {part.total - offset:,} bytes more and "
                    f"{self._part.parent} has {free:,} free: make room, or choose another place "
                    f"with {option('cache')}"
                )
            self._receive(response, part, offset)

    def _known_part(self, url: str) -> tuple[_Whole | None, int]:
        """The part that can be resumed, and its size; None and 0 if there is none."""
        try:
            part = _Whole(**json.loads(self._note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None, 0
        size = self._size()
        fits = part.total is None or size <= part.total
        if part.url != url or part.validator is None or size == 0 or not fits:
            return None, 0
        return part, size

    def _request(
        self, url: str, headers: Mapping[str, str]
    ) -> AbstractContextManager[Response, None]:
        import requests  # noqa: PLC0415 - comes with pooch

        try:
            response: AbstractContextManager[Response, None] = requests.get(
                url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS
            )
        except requests.exceptions.SSLError as error:
            raise self._failure(f"its certificate is not trusted ({_short(error)})") from error
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
            reason = f"there is no connection ({_short(error)})"
            raise _Interrupted(reason, can_retry=self._has_begun) from error
        except requests.exceptions.RequestException as error:
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

    def _begin(self, url: str, response: Response) -> _Whole:
        """Discard any earlier part, and note what the new one belongs to."""
        self._discard()
        headers: Mapping[str, str] = response.headers
        tag = headers.get("ETag", "")
        length = headers.get("Content-Length", "")
        is_coded = headers.get("Content-Encoding", "identity") != "identity"
        # `If-Range` may carry a strong entity tag, or else a date.
        validator = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")
        part = _Whole(
            url=url,
            validator=None if is_coded else validator,
            total=int(length) if length.isdecimal() and not is_coded else None,
        )
        self._part.write_bytes(b"")
        self._note.write_text(json.dumps(asdict(part)), encoding="utf-8")
        return part

    def _receive(self, response: Response, part: _Whole, size: int) -> None:
        """Append the body to the part, which has `size` bytes.

        Raises:
            _Interrupted: if the body ends too early.
        """
        import requests  # noqa: PLC0415 - as above

        self._has_begun = True
        try:
            with self._part.open("ab") as file:
                for chunk in response.iter_content(_CHUNK_BYTES):
                    file.write(chunk)
                    size += len(chunk)
                    if self._progress is not None:
                        self._progress(size, part.total)
        except requests.exceptions.RequestException as error:
            raise _Interrupted("the connection ended", can_retry=True) from error
        except OSError as error:
            raise self._failure(f"{self._part} cannot be written ({error.strerror})") from error
        if part.total is not None and size < part.total:
            raise _Interrupted("the connection ended", can_retry=True)
        if part.total is not None and size > part.total:
            self._discard()
            raise self._failure(f"{size:,} bytes arrived and the server announced {part.total:,}")

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


def _continues(headers: Mapping[str, str], offset: int, total: int | None) -> bool:
    """Whether the part that arrives begins at `offset` of a file of `total` bytes."""
    match = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
    if match is None or int(match[1]) != offset:
        return False
    return total is None or match[2] in ("*", str(total))


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
