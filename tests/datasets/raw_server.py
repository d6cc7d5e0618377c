"""A server on the loopback interface that sends any bytes, as servers of HTTP would not."""

import contextlib
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

Answer = Callable[[int, Mapping[str, str]], Iterable[bytes]]


@dataclass
class RawServer:
    """What a server sends.

    Attributes:
        url: where it is.
        answer: gives what follows the n-th request with these headers, whose names are in lower
            case; the connection ends behind it.
        num_asked: requests so far.
    """

    url: str = ""
    answer: Answer = lambda *_: []
    num_asked: int = 0


@contextmanager
def raw_serving() -> Iterator[RawServer]:
    """A server for as long as the block lasts."""
    raw = RawServer()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            lines = list(iter(lambda: self.rfile.readline().rstrip(b"\r\n"), b""))
            named = (line.decode("latin-1").partition(": ") for line in lines[1:])
            raw.num_asked += 1
            headers = {name.lower(): value for name, _, value in named}
            with contextlib.suppress(OSError):  # the client has enough
                for piece in raw.answer(raw.num_asked, headers):
                    self.wfile.write(piece)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        raw.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield raw
        finally:
            server.shutdown()
            thread.join()


def head(status: str, headers: Mapping[str, str]) -> bytes:
    """The beginning of an answer."""
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
