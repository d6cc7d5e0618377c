"""A file server on the loopback interface that fails on request."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_PIECE_BYTES = 1 << 16


@dataclass
class Served:
    """A file as the server hands it out.

    Attributes:
        content: its bytes.
        etag: its entity tag, quoted; None sends none.
        modified: its date.
        takes_ranges: whether a range is answered with a part.
        cuts: for each next answer, after how many bytes of the body the connection ends.
        statuses: for each next answer, a status that is sent in place of the file.
        content_type: what the server calls it.
        gate: if set, the body waits for it.
        lies_about_start: a part is sent with a wrong Content-Range.
        pause_seconds: after each 64 KiB of the body.
    """

    content: bytes
    etag: str | None = '"one"'
    modified: str | None = None
    takes_ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    content_type: str = "application/octet-stream"
    gate: threading.Event | None = None
    lies_about_start: bool = False
    pause_seconds: float = 0


@dataclass
class FileServer:
    """Files by name, and what was asked of it.

    Attributes:
        url: where it is.
        files: what it serves.
        asked: name, `Range` and `If-Range` of every request.
    """

    url: str
    files: dict[str, Served] = field(default_factory=dict)
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[FileServer]:
    """A server for as long as the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    files = FileServer(url=f"http://127.0.0.1:{server.server_address[1]}")
    server.files = files  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the file, a part of it, or a failure."""
        files: FileServer = self.server.files  # type: ignore[attr-defined]
        name = self.path.split("?")[0].rsplit("/", 1)[-1]
        wanted, condition = self.headers["Range"], self.headers["If-Range"]
        files.asked.append((name, wanted, condition))
        served = files.files.get(name)
        if served is None or served.statuses:
            self.send_error(404 if served is None else served.statuses.pop(0))
            return
        body, first = served.content, 0
        validator = served.etag or served.modified
        is_part = wanted is not None and served.takes_ranges and condition in (None, validator)
        if is_part:
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if first >= len(body):
                self.send_error(416)
                return
            body = body[first:]
        self.send_response(206 if is_part else 200)
        if is_part:
            start = first + 1 if served.lies_about_start else first
            total = len(served.content)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if served.etag is not None:
            self.send_header("ETag", served.etag)
        if served.modified is not None:
            self.send_header("Last-Modified", served.modified)
        self.send_header("Content-Type", served.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if served.gate is not None:
            served.gate.wait(60)
        if served.cuts:
            body = body[: served.cuts.pop(0)]
            self.close_connection = True
        with suppress(ConnectionError):  # who asked may have been killed
            for first in range(0, len(body), _PIECE_BYTES):
                self.wfile.write(body[first : first + _PIECE_BYTES])
                time.sleep(served.pause_seconds)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""
