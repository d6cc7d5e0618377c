"""The worker's side of `Worker`: a loop that answers requests, one JSON object per line.

    serve({"prepare": prepare, "step": step})

A request names its handler under "do"; its other entries are the handler's arguments. The reply is
the handler's return value. This module needs nothing but the standard library.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["peak_resident_bytes", "serve"]


def serve(handlers: Mapping[str, Callable[..., Mapping[str, Any]]]) -> None:
    """Answer requests on standard input until it ends.

    Replies go to the original standard output; anything else that is printed is redirected to
    standard error. If a handler raises, its error is the reply, and the loop continues with the
    next request.

    Args:
        handlers: by name; called with the request's arguments, each returns the reply.
    """
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        for line in sys.stdin:
            request = json.loads(line)
            try:
                reply = dict(handlers[request.pop("do")](**request))
            except Exception as error:  # noqa: BLE001 - reported to the asking side
                reply = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
            replies.write(json.dumps(reply) + "\n")
            replies.flush()


def peak_resident_bytes() -> int | None:
    """Peak resident memory of this process so far; None where the system does not report it."""
    # /proc because psutil is not in every worker's environment; ru_maxrss would include the parent.
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:  # noqa: PTH123
            peaks = (int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
            return next(peaks, None)
    except OSError:
        return None
