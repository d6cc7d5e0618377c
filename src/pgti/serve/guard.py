"""What every request passes: host, token, metrics, headers, and no traceback in any answer."""

import hmac
import logging
import re
import time
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pgti.serve.metrics import ServeMetrics
from pgti.serve.options import ServeOptions, is_loopback
from pgti.serve.problems import RequestError, problem_response

__all__ = ["Guard"]

_LOGGER = logging.getLogger("pgti.serve")
_HOST = re.compile(r"(?:\[([\da-fA-F:.]+)\]|([\w.-]+))(?::\d*)?", re.ASCII)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class Guard:
    """Middleware around all routes.

    Args:
        app: the routes.
        options: host and token.
        metrics: that count requests.
        open_paths: of routes that need no token; they show nothing of the run.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        options: ServeOptions,
        metrics: ServeMetrics,
        open_paths: frozenset[str],
    ) -> None:
        self._app, self._options, self._metrics = app, options, metrics
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # of whose answer the server sends the headers
        began, status = time.perf_counter(), 0

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                add_headers(MutableHeaders(scope=message))
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._answer(scope, receive, send_guarded)
        except Exception:
            _LOGGER.exception("internal error in %s", scope["path"][:200])
            if status:
                raise  # the answer has begun
            problem = RequestError(500, "internal error: the server's log has the traceback")
            await problem_response(problem)(scope, receive, send_guarded)
        finally:
            self._metrics.in_flight.dec()
            self._count(scope, status, time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._refusal(scope["path"], Headers(scope=scope))
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await problem_response(problem)(scope, receive, send)

    def _refusal(self, path: str, headers: Headers) -> RequestError | None:
        token = self._options.token
        if token is None:
            # A page of elsewhere whose name leads to this machine is none of its own.
            name = _host_name(headers.get("host", ""))
            if not is_loopback(name) and name != self._options.host:
                return RequestError(
                    421, f"the request asks for the host {name[:100]!r}: use the server's address"
                )
            return None
        if path in self._open_paths:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode("latin-1", "replace"), token.encode()
        ):
            return None
        return RequestError(
            401,
            "the request has no token, or another one: send Authorization: Bearer TOKEN",
            {"WWW-Authenticate": "Bearer"},
        )

    def _count(self, scope: Mapping[str, Any], status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)


def add_headers(headers: MutableHeaders) -> None:
    """The headers that every answer has, unless its route says otherwise."""
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
    headers.setdefault("content-security-policy", _POLICY)
    headers.setdefault("cache-control", "no-store")


def _host_name(host: str) -> str:
    """The name in a Host header, without its port; none if it is no such header."""
    parts = _HOST.fullmatch(host)
    return "" if parts is None else (parts[1] or parts[2]).lower()
