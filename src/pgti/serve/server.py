"""Serve a run until a signal asks to stop."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from pgti.errors import ConfigError, option
from pgti.serve.app import build_app
from pgti.serve.metrics import ServeMetrics
from pgti.serve.options import ServeOptions
from pgti.serve.state import ServedRun

__all__ = ["serve_run"]

_BACKLOG = 128


def serve_run(
    path: Path, options: ServeOptions, log: Callable[[str], None], **open_options: Any
) -> int:
    """Serve a run until a signal asks to stop; requests that run are answered first.

    Args:
        path: of the run.
        options: where, and with which limits.
        log: receives a line for each thing that happens.
        **open_options: of `Run.open`.

    Returns:
        The number of the signal.

    Raises:
        PgtiError: if the run cannot be opened, or the address is not free.
    """
    metrics = ServeMetrics()
    served = ServedRun(path, intervals=options.intervals, metrics=metrics, log=log, **open_options)
    listening = _listen(options)
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger("pgti.serve").addHandler(handler)
    server = _Server(
        uvicorn.Config(
            build_app(served, options, metrics),
            http="h11",  # its headers are bounded
            lifespan="on",
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=int(options.timeout_seconds) + 5,
            h11_max_incomplete_event_size=1 << 16,
        )
    )
    host, port = listening.getsockname()[:2]
    log(f"serving {path} at http://{f'[{host}]' if ':' in host else host}:{port}")
    try:
        asyncio.run(server.serve([listening]))
    finally:
        listening.close()
        logging.getLogger("pgti.serve").removeHandler(handler)
    return server.stopped_by


class _Server(uvicorn.Server):
    """A server that leaves the signal to its caller, who knows which exit code it means."""

    stopped_by = signal.SIGTERM

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop when the requests that run are answered; at a second SIGINT, at once."""
        self.stopped_by = signal.Signals(sig)
        super().handle_exit(sig, frame)
        self._captured_signals.clear()  # uvicorn would raise them again


def _listen(options: ServeOptions) -> socket.socket:
    try:
        found = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"nothing can listen on {options.host} port {options.port}: {error.strerror or error}; "
            f"choose another with {option('host')} or {option('port')}"
        ) from None
    return listening
