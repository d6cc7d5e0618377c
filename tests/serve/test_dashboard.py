"""The dashboard in a browser, on a server of its own process."""

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

import pgti
from pgti.memory import pss_bytes

from ..browser import WIDTHS, Browser, assert_drawn, assert_fits
from .served_runs import SPEEDS, train

TOKEN = "0123456789abcdef"


@contextmanager
def process(
    run: Path, *arguments: str, token: str = ""
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A server as users start it, and its address; it is ready."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PGTI_SERVE_TOKEN": token}
    command = [sys.executable, "-m", "pgti", "serve", str(run), "--port", "0", *arguments]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            address = re.search(r"http://\S+", server.stderr.readline())
            assert address is not None
            ends = time.monotonic() + 60
            while True:
                try:
                    urllib.request.urlopen(f"{address[0]}/readyz").close()
                    break
                except urllib.error.HTTPError as error:
                    error.close()
                    assert time.monotonic() < ends
                    time.sleep(0.05)
            yield server, address[0]
        finally:
            server.kill()


@pytest.mark.slow
def test_the_dashboard_draws_follows_the_store_and_asks_for_a_token(
    tmp_path: Path, browser: Browser
) -> None:
    run = train(tmp_path)
    with process(run, token=TOKEN) as (_, address):
        for width in WIDTHS:
            with browser.page(address, width) as page:
                page.wait_for_selector("#login:not([hidden])")
                page.problems.clear()  # 401
                page.fill("#token", "wrong")
                page.click("#login button")
                page.wait_for_selector("#status.problem")
                assert "does not know this token" in page.text_content("#status")
                page.problems.clear()
                page.fill("#token", TOKEN)
                page.click("#login button")
                assert_drawn(page, "#map")
                assert_fits(page)
                assert "Data until 2025-10-03 11:45 (Europe/Berlin)" in page.text_content("#status")
                points = page.locator("#map .point")
                assert points.count() == 3
                page.locator("#map .nsewdrag").dispatch_event("mousemove")
                box = points.nth(1).bounding_box()
                x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
                page.mouse.move(x - 1, y)
                page.mouse.move(x, y)
                page.wait_for_selector("#map .hoverlayer .hovertext", state="attached")
                page.mouse.click(x, y)
                assert_drawn(page, "#chart")
                assert page.text_content("#chart-title") == "Sensor <b>"
                assert_fits(page)
                first = page.text_content("#step-text")
                page.fill("#step", "2")
                page.wait_for_function(
                    "text => document.getElementById('step-text').textContent !== text", arg=first
                )
                assert "30 minutes ahead" in page.text_content("#step-text")
        store = pgti.SeriesStore.open(tmp_path / "store")
        with browser.page(address) as page:
            page.problems.clear()
            page.evaluate(f"sessionStorage.setItem('pgti-token', '{TOKEN}')")
            page.reload()
            assert_drawn(page, "#map")
            page.problems.clear()
            store.append(SPEEDS.iloc[-1:].set_axis(SPEEDS.index[-1:] + SPEEDS.index.freq))
            page.wait_for_function(
                "() => document.getElementById('status').textContent.includes('12:00')",
                timeout=15_000,
            )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_when_its_requests_are_answered(
    tmp_path: Path, number: signal.Signals
) -> None:
    """A body that arrives slowly is waited for; new connections are refused."""
    with ExitStack() as held, process(train(tmp_path)) as (server, address):
        host = address.removeprefix("http://")
        slow = held.enter_context(closing(http.client.HTTPConnection(host, timeout=30)))
        slow.putrequest("POST", "/v1/forecast")
        for name, value in (("Content-Type", "application/json"), ("Content-Length", "2")):
            slow.putheader(name, value)
        slow.endheaders(b"{")
        time.sleep(0.3)
        server.send_signal(number)
        time.sleep(0.5)
        with pytest.raises(OSError, match="refused"):
            http.client.HTTPConnection(host, timeout=5).request("GET", "/healthz")
        slow.send(b"}")
        answer = slow.getresponse()
        assert answer.status == 200
        assert answer.read().startswith(b'{"model":"gru"')
        assert server.wait(20) == 128 + number
        assert server.stderr is not None
        said = server.stderr.read()
        assert "stopped, all requests are answered" in said
        assert "Traceback" not in said


@pytest.mark.slow
def test_memory_does_not_grow_with_requests(tmp_path: Path) -> None:
    with process(train(tmp_path)) as (server, address):

        def ask(count: int) -> None:
            for _ in range(count):
                request = urllib.request.Request(
                    f"{address}/v1/forecast", b"{}", {"Content-Type": "application/json"}
                )
                urllib.request.urlopen(request).read()

        ask(300)
        before = pss_bytes(server.pid)
        threads = [threading.Thread(target=ask, args=(500,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after = pss_bytes(server.pid)
        assert before is not None
        assert after is not None
        assert after - before < 8 << 20
