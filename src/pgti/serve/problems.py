"""What goes wrong with a request, as one line of JSON (RFC 9457)."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import Response

from pgti.errors import ConfigError, DataError, PgtiError, RunError

__all__ = ["RequestError", "describe_invalid", "problem_of", "problem_response"]

MEDIA_TYPE = "application/problem+json"
_LONGEST = 1_000


class RequestError(Exception):
    """A request that is refused.

    Attributes:
        status: HTTP status.
        detail: what is wrong, the rule and what to do.
        headers: of the answer.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


def problem_response(problem: RequestError) -> Response:
    """The answer to a refused request."""
    line = " ".join(problem.detail.split())
    if len(line) > _LONGEST:
        line = f"{line[:_LONGEST]} ..."
    content = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": line,
    }
    return Response(json.dumps(content), problem.status, problem.headers, MEDIA_TYPE)


def problem_of(error: PgtiError) -> RequestError:
    """An error of the library as the answer to a request."""
    if isinstance(error, ConfigError | DataError):
        return RequestError(422, str(error))
    if isinstance(error, RunError):  # its own rows are gone: newer readings would do
        return RequestError(409, str(error))
    return RequestError(503, str(error), {"Retry-After": "5"})


def describe_invalid(errors: Sequence[Mapping[str, Any]]) -> str:
    """The first of pydantic's errors in one line."""
    error = errors[0]
    place = ".".join(str(each) for each in error["loc"] if each != "body") or "the body"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{place}: {error['msg']}{more}"
