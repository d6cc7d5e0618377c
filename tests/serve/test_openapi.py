"""Requests made from the server's own description are answered as it says, and never with 5xx."""

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS, load_all_checks

from .served_runs import Served, serve, train

_CHECKS = ("status_code_conformance", "content_type_conformance", "response_schema_conformance")


def fuzz(served: Served, num_examples: int) -> set[tuple[str, int]]:
    """Routes and statuses that were seen."""
    host = {"Host": "localhost"}
    schema = schemathesis.openapi.from_asgi("/openapi.json", served.client.app, headers=host)
    load_all_checks()
    checks = CHECKS.get_by_names(["not_a_server_error", *_CHECKS])
    seen: set[tuple[str, int]] = set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=num_examples if operation.method == "post" else num_examples // 5 + 1,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            answer = case.call(base_url="http://localhost", headers=host)
            seen.add((case.path, answer.status_code))
            case.validate_response(answer, checks=checks)

        ask()
    return seen


def test_requests_made_from_the_description(tmp_path: Path) -> None:
    with serve(train(tmp_path)) as served:
        seen = fuzz(served, 4)
    assert {path for path, _ in seen} == {
        "/v1/forecast", "/v1/metadata", "/healthz", "/readyz", "/metrics"
    }  # fmt: skip


@pytest.mark.slow
def test_many_requests_made_from_the_description(tmp_path: Path) -> None:
    with serve(train(tmp_path)) as served:
        seen = fuzz(served, 1500)
    statuses = {status for path, status in seen if path == "/v1/forecast"}
    assert statuses >= {200, 422}
    assert max(statuses) < 500
