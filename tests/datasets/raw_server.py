"""A server on the loopback interface that sends any bytes, as servers of HTTP would not."""

import contextlib
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

Answer = Callable[[Mapping[str, str]], Iterable[bytes]]


@contextmanager
def raw_serving(answer: Answer) -> Iterator[str]:
    """A server for as long as the block lasts; gives its address.

    Args:
        answer: gives what follows the headers of a request, whose names are in lower case; the
            connection ends behind it.
    """

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            lines = [line.decode("latin-1").rstrip("\r\n") for line in iter(self._line, b"\r\n")]
            named = (line.partition(": ") for line in lines[1:])
            headers = {name.lower(): value for name, _, value in named}
            with contextlib.suppress(OSError):  # the client has enough
                for piece in answer(headers):
                    self.wfile.write(piece)

        def _line(self) -> bytes:
            return self.rfile.readline() or b"\r\n"

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def head(status: str, headers: Mapping[str, str]) -> bytes:
    """The beginning of an answer."""
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
