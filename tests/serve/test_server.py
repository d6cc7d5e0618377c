"""Access, limits, state, reloads and what the server says of itself."""

import asyncio
import gzip
import json
import re
import shutil
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request

from pgti.cli.main import run_command
from pgti.errors import ConfigError
from pgti.serve.answers import choose_media_type
from pgti.serve.bodies import inflate, read_body
from pgti.serve.options import ServeOptions
from pgti.serve.problems import RequestError
from pgti.training.checkpoint import Checkpoint

from .served_runs import IDS, Served, records, serve, train

TOKEN = "0123456789abcdef"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module", name="served")
def _served(run: Path) -> Iterator[Served]:
    with serve(run) as served:
        yield served


def test_it_says_how_it_is_and_what_it_forecasts(served: Served) -> None:
    client = served.client
    assert client.get("/healthz").text == "ok\n"
    facts = client.get("/v1/metadata").json()
    assert facts["sensors"] == list(IDS)
    assert facts["units"] == {"speed": "mph"}
    assert (facts["input_steps"], facts["horizon"], facts["interval_seconds"]) == (4, 2, 900)
    assert facts["time_zone"] == "Europe/Berlin"
    assert facts["intervals"] == [0.8]
    history = served.run.model.run.history
    assert facts["epoch"] == history["epoch"].iloc[-1] == 1  # as the log and the report count
    assert served.metric("pgti_model_epoch") == 1
    assert str(served.run.model.run.directory.path) not in json.dumps(facts)
    before = served.metric("pgti_windows_forecast_total")
    assert served.post(json={"readings": records()}).status_code == 200
    assert served.post(content="{").status_code == 415
    assert client.get("/none").status_code == 404
    assert served.metric("pgti_windows_forecast_total") == before + 1
    text = client.get("/metrics").text
    for line in (
        'pgti_requests_total{method="POST",route="/v1/forecast",status="200"}',
        'pgti_requests_total{method="POST",route="/v1/forecast",status="415"}',
        'pgti_requests_total{method="GET",route="other",status="404"} 1.0',
        'pgti_request_seconds_bucket{le="0.005",route="/v1/forecast"}',
        "pgti_requests_in_flight 1.0",  # this one
        "pgti_forecasts_waiting 0.0",
        "process_resident_memory_bytes",
    ):
        assert line in text


def test_every_answer_has_strict_headers_and_pages_ask_no_other_machine(served: Served) -> None:
    for path in ("/", "/docs", "/openapi.json", "/healthz", "/none", "/static/dashboard.js"):
        answer = served.client.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-eval" not in policy
        assert not re.findall(r"(?:src|href)=.?(?:https?:)?//", answer.text)
    page = served.client.get("/docs").text
    assert "POST /v1/forecast" in page
    script = served.client.get("/static/plotly.js", headers={"Accept-Encoding": "gzip"})
    assert script.headers["content-encoding"] == "gzip"
    assert "plotly.js v" in script.text[:400]


def test_another_host_than_loopback_needs_a_token(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PGTI_SERVE_TOKEN", raising=False)
    assert run_command(["serve", str(run), "--host", "0.0.0.0"]) == 2
    error = capsys.readouterr().err
    assert "PGTI_SERVE_TOKEN" in error
    assert error.count("\n") == 1
    assert run_command(["serve", str(run), "--max-body-mib", "0"]) == 2
    assert "max_body_mib is 0" in capsys.readouterr().err
    for host in ("", "::", "10.0.0.1", "example.org", "127.0.0.1.example.org"):
        with pytest.raises(ConfigError, match="set a token"):
            ServeOptions(host=host)
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.9"):
        ServeOptions(host=host)
    with pytest.raises(ConfigError, match="5 characters: it must have at least 16"):
        ServeOptions(token="short")


def test_a_token_is_asked_for_all_that_shows_the_run(run: Path) -> None:
    with serve(run, host="0.0.0.0", token=TOKEN) as served:
        for path in ("/healthz", "/readyz", "/", "/static/dashboard.js", "/openapi.json"):
            assert served.client.get(path).status_code == 200
        paths = (
            "/metrics",
            "/v1/metadata",
            "/dashboard/state",
            "/dashboard/map?channel=speed&step=1",
        )
        for path in paths:
            for wrong in (
                {},
                {"Authorization": f"Basic {TOKEN}"},
                {"Authorization": "Bearer x"},
                {"Authorization": f"Bearer {TOKEN}x"},
                {"Authorization": "Bearer \u00e9"},
            ):
                headers = {name: value.encode("latin-1") for name, value in wrong.items()}
                answer = served.client.get(path, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
            assert served.client.get(path, headers=BEARER).status_code == 200
        assert served.client.post("/v1/forecast", json={}).status_code == 401
        assert served.client.post("/v1/forecast", json={}, headers=BEARER).status_code == 200


def test_routes_that_answer_get_answer_head(served: Served) -> None:
    """As probes and `curl -I` ask; nothing is redirected to an address that a request names."""
    for path in ("/", "/healthz", "/readyz", "/metrics", "/v1/metadata", "/docs"):
        assert served.client.head(path).status_code == 200
    assert served.client.head("/v1/forecast").status_code == 405
    assert served.client.get("/healthz/", follow_redirects=False).status_code == 404


def test_a_page_of_another_name_cannot_ask_a_server_on_loopback(served: Served) -> None:
    for host in (
        "evil.example",
        "localhost:8000@evil.example",
        "localhost.evil.example",
        "[::1",
        "",
    ):
        answer = served.client.get("/v1/metadata", headers={"Host": host})
        assert answer.status_code == 421, host
    for host in ("127.0.0.1:8000", "[::1]:8000", "localhost", "LocalHost:8000"):
        assert served.client.get("/v1/metadata", headers={"Host": host}).status_code == 200


def test_bodies_have_a_limit_however_they_are_sent(run: Path) -> None:
    with serve(run, max_body_bytes=1000) as served:
        headers = {"Content-Type": "application/json"}
        answer = served.post(content=b"x" * 1001, headers=headers)
        assert answer.status_code == 413
        answer = served.post(content=iter([b"x" * 600] * 2), headers=headers)  # chunked
        assert answer.status_code == 413
        assert answer.json()["detail"].startswith("the body is larger than 1.0 KiB")
    bomb = gzip.compress(b"x" * 10_000_000)
    assert len(bomb) < 10_000
    for content, encoding in ((bomb, "gzip"), (zlib.compress(b"x" * 9999), "deflate")):
        with pytest.raises(RequestError, match="larger") as refused:
            inflate(content, encoding, 1000)
        assert refused.value.status == 413
    assert inflate(gzip.compress(b"x" * 1000), "gzip", 1000) == b"x" * 1000
    for damaged in (bomb[:50], gzip.compress(b"x") * 2):
        with pytest.raises(RequestError, match=r"not one whole gzip stream|not gzip"):
            inflate(damaged, "gzip", 1 << 30)


def test_a_body_that_does_not_arrive_is_not_waited_for() -> None:
    async def never() -> Any:
        await asyncio.sleep(60)

    request = Request({"type": "http", "headers": []}, never)
    with pytest.raises(RequestError, match=r"within 0.01 s") as refused:
        asyncio.run(read_body(request, 100, 0.01))
    assert refused.value.status == 408

    async def leave() -> Any:
        return {"type": "http.disconnect"}

    request = Request({"type": "http", "headers": []}, leave)
    with pytest.raises(RequestError, match="within the body") as refused:
        asyncio.run(read_body(request, 100, 1.0))
    assert refused.value.status == 400


def test_accept_chooses_json_or_arrow() -> None:
    arrow = "application/vnd.apache.arrow.stream"
    for accept, chosen in (
        ("", "application/json"), ("*/*", "application/json"), (arrow, arrow),
        (f"application/json;q=0.5, {arrow}", arrow),
        (f"application/json, {arrow}", "application/json"),
        (f"{arrow};q=0, */*;q=0.1", "application/json"),
    ):  # fmt: skip
        assert choose_media_type(accept) == chosen
    for accept in ("text/html", f"{arrow};q=0", "application/json;q=x"):
        with pytest.raises(RequestError, match="accepts"):
            choose_media_type(accept)


def test_health_answers_while_a_forecast_is_computed_and_too_many_are_refused(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, end = threading.Event(), threading.Event()
    with serve(run, max_waiting=2, timeout_seconds=1.0) as served:

        def forecast(*_: Any, **__: Any) -> Any:
            begun.set()
            assert end.wait(30)
            raise ConfigError("the end")

        with monkeypatch.context() as patched:
            patched.setattr(served.run, "forecast", forecast)
            answers: list[Any] = []
            threads = [
                threading.Thread(target=lambda: answers.append(served.post(json={})))
                for _ in range(2)
            ]
            for thread in threads:
                thread.start()
            assert begun.wait(10)
            while served.metric("pgti_forecasts_waiting") < 2:
                time.sleep(0.005)
            assert served.client.get("/healthz").status_code == 200
            refused = served.post(json={})
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            for thread in threads:
                thread.join()
            assert [each.status_code for each in answers] == [503, 503]  # too slow
            assert "not ready in time" in answers[0].json()["detail"]
            # What is computed takes its place until it ends, although nobody waits.
            assert served.metric("pgti_forecasts_waiting") == 1
            end.set()
        assert served.post(json={}).status_code == 200
        assert served.metric("pgti_forecasts_waiting") == 0


def test_an_error_of_the_program_shows_nothing_of_it(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(served.run, "forecast", lambda *_, **__: 1 / 0)
        answer = served.post(json={})
    assert answer.status_code == 500
    assert "ZeroDivisionError" not in answer.text
    assert "ZeroDivisionError" in caplog.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_new_checkpoint_is_loaded_and_a_damaged_one_is_not(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    best = copy / "checkpoints" / "best.pt"
    with serve(copy) as served:
        before = served.post(json={}).json()
        served.run.reload_if_changed()
        assert not served.lines
        content = best.read_bytes()
        _replace(best, b"damaged")
        served.run.reload_if_changed()
        served.run.reload_if_changed()  # it is looked at once
        assert served.post(json={}).json() == before
        assert "the old model stays" in served.lines[-1]
        text = served.client.get("/metrics").text
        assert 'pgti_model_reloads_total{outcome="failed"} 1.0' in text
        _replace(best, _changed(content, tmp_path))
        served.run.reload_if_changed()
        text = served.client.get("/metrics").text
        assert 'pgti_model_reloads_total{outcome="done"} 1.0' in text
        after = served.post(json={}, params={"intervals": 0.8}).json()
        values = [content["forecasts"][0]["forecast"] for content in (before, after)]
        assert values[0] != values[1]
        assert "lo-80" in after["forecasts"][0]


def _replace(path: Path, content: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(content)
    other.replace(path)


def _changed(content: bytes, directory: Path) -> bytes:
    """The checkpoint of another training."""
    path = directory / "changed.pt"
    path.write_bytes(content)
    state = Checkpoint.load(path)
    network = {name: value + 0.25 for name, value in state.network.items()}
    replace(state, network=network).save(path)
    return path.read_bytes()


def test_a_run_whose_store_is_gone_forecasts_what_requests_bring(tmp_path: Path) -> None:
    path = train(tmp_path)
    shutil.rmtree(tmp_path / "store")
    with serve(path) as served:
        assert served.client.get("/v1/metadata").json()["intervals"] == []
        assert any("requests have to bring readings" in line for line in served.lines)
        assert served.post(json={"readings": records()}).status_code == 200
        refused = served.post()
        assert refused.status_code == 409
        assert "is gone" in refused.json()["detail"]


def test_the_dashboard_gets_its_figures(served: Served) -> None:
    state = served.client.get("/dashboard/state").json()
    assert state["sensors"] == list(IDS)
    assert state["age_seconds"] > 0
    forecasts = served.post(json={}, params={"layout": "columns"}).json()["forecasts"]
    figure = served.client.get("/dashboard/map", params={"channel": "speed", "step": 2}).json()
    points = figure["data"][-1]
    assert points["text"] == ["a", "&lt;b&gt;", "c&amp;amp;"]
    assert len(state["times"]) == 2
    hover = served.client.get("/dashboard/sensor", params={"id": "<b>", "channel": "speed"}).json()
    names = [trace["name"] for trace in hover["data"]]
    assert names == ["80% interval", "80% interval", "observed", "forecast"]
    assert "mph" in json.dumps(hover["layout"])
    assert len(forecasts["forecast"]) == 6
    for path, status in (
        ("/dashboard/map?channel=flow&step=1", 422), ("/dashboard/map?channel=speed&step=3", 422),
        ("/dashboard/map?channel=speed&step=0", 422), ("/dashboard/sensor?channel=speed&id=x", 404),
        ("/static/none", 404), ("/static/..%2fapp.py", 404),
    ):  # fmt: skip
        assert served.client.get(path).status_code == status
