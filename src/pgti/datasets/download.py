"""Downloading one file over HTTPS, going on where a former attempt stopped.

What has come lies in `NAME.part`, and what tells the file that it is part of in `NAME.part.json`.
The request for the rest carries the entity tag (or date) of the first answer as `If-Range`, so a
file that has changed meanwhile comes whole. Without tag and date nothing can be joined safely, and
the file is downloaded anew.
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
from pgti.errors import FetchError, MissingExtraError

__all__ = ["ResumingDownloader", "import_pooch"]

_CHUNK_BYTES = 1 << 18
_ATTEMPTS = 5  # in a row without a byte more
_WAIT_SECONDS = 1.0  # before the second attempt, and so much more before each later one
_TIMEOUT_SECONDS = (10, 60)  # for a connection, and for the next bytes
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_SIGNATURES = {".zip": b"PK", ".npz": b"PK", ".h5": b"\x89HDF\r\n\x1a\n"}
_HTML = (b"<!doctype html", b"<html")
_POOL = re.compile(r"^\w*Connection(Pool)?\([^)]*\): ")  # says the host again
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")

Response = Any  # requests has no types


def import_pooch() -> Any:
    """The library that keeps downloads.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        import pooch  # noqa: PLC0415 - an optional library
    except ImportError:
        raise MissingExtraError("pooch", "datasets") from None
    return pooch


class _Cut(Exception):  # noqa: N818 - what comes of it is decided where it is caught
    """The connection ended, or could not be made; what had come is kept."""

    def __init__(self, reason: str, *, is_passing: bool) -> None:
        super().__init__(reason)
        self.is_passing = is_passing


@dataclass(frozen=True, slots=True)
class _Whole:
    """What tells the file that a part belongs to."""

    url: str
    validator: str | None
    total: int | None


class ResumingDownloader:
    """A downloader for pooch, which calls it with a URL and the file to make.

    Args:
        download: the file.
        part: where what has come is kept; nobody else writes there meanwhile.
        advice: what a user can do if it fails, the end of every message.
        progress: called with the bytes that have come and, where known, the bytes in all.
    """

    def __init__(
        self,
        download: Download,
        part: Path,
        advice: str,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> None:
        self._download = download
        self._part = part
        self._note = part.with_name(f"{part.name}.json")
        self._advice = advice
        self._progress = progress
        self._has_begun = False

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Make `output_file`.

        Raises:
            FetchError: if the server cannot be reached or trusted, answers with an error or a
                page, or the connection ends again and again. A part that can be used later stays.
        """
        furthest, num_failed = 0, 0
        while True:
            try:
                self._go_on(url)
                break
            except _Cut as cut:
                num_failed = 1 if self._size() > furthest else num_failed + 1
                furthest = max(furthest, self._size())
                if not cut.is_passing or num_failed == _ATTEMPTS:
                    raise self._failed(str(cut)) from cut
                time.sleep(_WAIT_SECONDS * num_failed)
        self._check_content()
        self._part.replace(output_file)
        self._note.unlink(missing_ok=True)

    def _go_on(self, url: str) -> None:
        """Ask for what is missing, and receive it."""
        part, offset = self._known_part(url)
        if part is not None and offset == part.total:
            return  # a process that died between the last byte and the renaming
        headers = {"Accept-Encoding": "identity", "User-Agent": f"pgti/{version('pgti')}"}
        if part is not None and part.validator is not None:
            headers |= {"Range": f"bytes={offset}-", "If-Range": part.validator}
        with self._answer(url, headers) as response:
            self._check_answer(response)
            if part is None or response.status_code != HTTPStatus.PARTIAL_CONTENT:
                part, offset = self._begin(url, response), 0
            elif not _continues(response.headers, offset, part.total):
                self._forget()
                raise _Cut("another part came than was asked for", is_passing=True)
            self._check_room(part, offset)
            self._receive(response, part, offset)

    def _known_part(self, url: str) -> tuple[_Whole | None, int]:
        """The part that can be gone on with, and its size; None and 0 if there is none."""
        try:
            part = _Whole(**json.loads(self._note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None, 0
        size = self._size()
        fits = part.total is None or size <= part.total
        if part.url != url or part.validator is None or size == 0 or not fits:
            return None, 0
        return part, size

    def _answer(
        self, url: str, headers: Mapping[str, str]
    ) -> AbstractContextManager[Response, None]:
        import requests  # noqa: PLC0415 - comes with pooch

        try:
            response: AbstractContextManager[Response, None] = requests.get(
                url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS
            )
        except requests.exceptions.SSLError as error:
            raise self._failed(f"its certificate is not trusted ({_short(error)})") from error
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
            reason = f"there is no connection ({_short(error)})"
            raise _Cut(reason, is_passing=self._has_begun) from error
        except requests.exceptions.RequestException as error:
            raise self._failed(_short(error)) from error
        return response

    def _check_answer(self, response: Response) -> None:
        """Refuse what is no answer to trust or no file."""
        hops = [each.url for each in (*response.history, response)]
        if hops[0].startswith("https:") and not all(hop.startswith("https:") for hop in hops):
            raise self._failed(f"it leads to {hops[-1][:100]}, which is not https")
        status = response.status_code
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._forget()
            raise _Cut("the part that was kept is no part of the file", is_passing=True)
        if status in _RETRIED:
            raise _Cut(f"the server answers {status} {response.reason}", is_passing=True)
        if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise self._failed(f"the server answers {status} {response.reason}")
        if response.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise self._failed("a web page came in place of the file")

    def _begin(self, url: str, response: Response) -> _Whole:
        """Forget any former part, and note what the new one belongs to."""
        self._forget()
        headers: Mapping[str, str] = response.headers
        tag = headers.get("ETag", "")
        length = headers.get("Content-Length", "")
        is_coded = headers.get("Content-Encoding", "identity") != "identity"
        part = _Whole(
            url=url,
            validator=None if is_coded else _validator(tag, headers.get("Last-Modified")),
            total=int(length) if length.isdecimal() and not is_coded else None,
        )
        self._part.write_bytes(b"")
        self._note.write_text(json.dumps(asdict(part)), encoding="utf-8")
        return part

    def _check_room(self, part: _Whole, offset: int) -> None:
        free = shutil.disk_usage(self._part.parent).free
        if part.total is not None and part.total - offset > free:
            raise FetchError(
                f"{self._download.name} needs {part.total - offset:,} bytes more and "
                f"{self._part.parent} has {free:,} free: make room, or choose another place with "
                "--cache"
            )

    def _receive(self, response: Response, part: _Whole, offset: int) -> None:
        """Append the body to the part.

        Raises:
            _Cut: if it ends too early.
        """
        import requests  # noqa: PLC0415 - as above

        size = offset
        self._has_begun = True
        try:
            with self._part.open("ab") as file:
                for chunk in response.iter_content(_CHUNK_BYTES):
                    file.write(chunk)
                    size += len(chunk)
                    if self._progress is not None:
                        self._progress(size, part.total)
        except requests.exceptions.RequestException as error:
            raise _Cut("the connection ended", is_passing=True) from error
        except OSError as error:
            raise self._failed(f"{self._part} cannot be written ({error.strerror})") from error
        if part.total is not None and size < part.total:
            raise _Cut("the connection ended", is_passing=True)
        if part.total is not None and size > part.total:
            self._forget()
            raise self._failed(f"{size:,} bytes came and the server announced {part.total:,}")

    def _check_content(self) -> None:
        """Refuse and forget a page that came as a file, and a file that is not what its name says.

        Raises:
            FetchError: saying so.
        """
        with self._part.open("rb") as file:
            head = file.read(512)
        signature = _SIGNATURES.get(Path(self._download.name).suffix, b"")
        is_page = head.lstrip().lower().startswith(_HTML)
        if head and not is_page and head.startswith(signature):
            return
        self._forget()
        if is_page:
            raise self._failed("a web page came in place of the file")
        raise self._failed(f"what came begins with {head[:8]!r}, which is no such file")

    def _failed(self, reason: str) -> FetchError:
        _, size = self._known_part(self._download.url)
        kept = f", {size:,} bytes have come and are kept" if size else ""
        return FetchError(
            f"{self._download.name} could not be downloaded from {self._download.url}: "
            f"{reason}{kept}; try again later, or {self._advice}"
        )

    def _size(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _forget(self) -> None:
        # The note first: a part without one is never gone on with.
        self._note.unlink(missing_ok=True)
        self._part.unlink(missing_ok=True)


def _validator(tag: str, modified: str | None) -> str | None:
    """What `If-Range` may carry: a strong entity tag, else a date."""
    return tag if tag and not tag.startswith("W/") else modified


def _continues(headers: Mapping[str, str], offset: int, total: int | None) -> bool:
    """Whether the part that came begins at `offset` of a file of `total` bytes."""
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
