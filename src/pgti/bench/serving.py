"""The other side of `Worker`: a loop that answers requests, one JSON object a line.

    serve({"prepare": prepare, "step": step})

A request names its handler under "do"; the rest are its arguments. The reply is what it returns.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["peak_resident_bytes", "serve"]

_STATUS = Path("/proc/self/status")


def serve(handlers: Mapping[str, Callable[..., Mapping[str, Any]]]) -> None:
    """Answer requests on standard input until it ends.

    Replies go to what was standard output; from then on everything else that is printed goes to
    standard error. A handler that raises ends nothing: its error is the reply, and the next
    request is answered.

    Args:
        handlers: by name; called with the request's arguments, returns the reply.
    """
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        for line in sys.stdin:
            request = json.loads(line)
            try:
                reply = dict(handlers[request.pop("do")](**request))
            except Exception as error:  # noqa: BLE001 - told to the asking side, whatever it is
                reply = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
            replies.write(json.dumps(reply) + "\n")
            replies.flush()


def peak_resident_bytes() -> int | None:
    """Most memory that this process ever had resident; None where the system does not tell."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    peaks = (int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return next(peaks, None)
