"""Servers that lie, change their file, cut connections or never end: one line, and no mixture."""

import itertools
import json
import shutil
import tempfile
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgti.datasets import Download
from pgti.datasets.checksums import Checksums
from pgti.datasets.download import ResumingDownloader
from pgti.errors import DataError, FetchError

from .raw_server import RawServer, head, raw_serving

# urllib3 leaves the sockets of answers that it refuses to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

NAME = "a.bin"
SIZE = 3000
FIRST = np.random.default_rng(1).integers(0, 256, SIZE, dtype=np.uint8).tobytes()
SECOND = bytes(byte ^ 0xFF for byte in FIRST)  # differs from the first in every place
MOST_REQUESTS = 40  # of one download: five attempts, and 30 redirects of one
SENSELESS = (
    "", "-1", "-0", "+5", "0", "1e5", "0x10", "1 2", "5, 5", "5, 6", "\xb2", "9" * 30, "9" * 5000,
    "NaN", "Infinity", "1.5", ";", "\x01", "\x7f", "\xff", '"', "W/", "*", "bytes", "bytes 0-",
    "bytes -1-5/9", "bytes 5-1/9", "bytes 0-2999/*", "bytes 0-0/0", "chunked, chunked", "gzip, br",
    "http://[", "//", "http://x:99999/", f"http://{'a' * 80}.x/", "file:///etc/passwd", "data:,x",
    "?", "#", "http:///", "%", "text/html; charset", "close, close", "x" * 60_000,
)  # fmt: skip
READ_HEADERS = (
    "Content-Length", "ETag", "Last-Modified", "Content-Type", "Content-Encoding",
    "Transfer-Encoding",
)  # fmt: skip
OTHER_HEADERS = (
    "Content-Range", "Date", "Location", "Accept-Ranges", "Connection", "Trailer", "Set-Cookie",
    "Content-Disposition", "Content-Location", "Keep-Alive", "Retry-After", "Upgrade",
)  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[RawServer]:
    """A server that is told what to send, and is asked without a proxy."""
    pytest.importorskip("pooch", reason="pooch is not installed")
    with pytest.MonkeyPatch.context() as patch, raw_serving() as running:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield running


def outcome(server: RawServer, answer: Callable[[int, Mapping[str, str]], Iterable[bytes]]) -> Any:
    """The bytes that a download gives, or its error; what it leaves is checked.

    Args:
        server: that is asked.
        answer: to the n-th request, whose headers it is given.
    """
    server.answer, server.num_asked = answer, 0
    with tempfile.TemporaryDirectory() as folder:
        url, target = f"{server.url}/{NAME}", Path(folder, NAME)
        follow = ResumingDownloader(
            Download(name=NAME, url=url), target.with_name("part"), "by hand", wait_seconds=0
        )
        result: Any
        try:
            follow(url, str(target), None)
            result = target.read_bytes()
        except FetchError as error:
            result = error
        left = sorted(path.name for path in Path(folder).iterdir())
        is_resumable = "bytes have arrived and stay" in str(result)
        if isinstance(result, bytes):
            assert left == [NAME]
        else:
            assert str(result).splitlines()[0].endswith("; try again later, or by hand")
            assert left == (["part", "part.json"] if is_resumable else [])
    assert server.num_asked <= MOST_REQUESTS
    return result


@pytest.mark.parametrize(
    ("status", "names"),
    [
        ("200 OK", READ_HEADERS),
        *(
            pytest.param(each, READ_HEADERS + OTHER_HEADERS, marks=pytest.mark.slow)
            for each in ("200 OK", "206 Partial Content", "302 Found", "416 No", "503 No")
        ),
    ],
)
def test_each_header_with_each_senseless_value(
    server: RawServer, status: str, names: tuple[str, ...]
) -> None:
    """The file or one line, whatever the server says of it."""
    for name, value in itertools.product(names, SENSELESS):
        headers = {"Content-Length": f"{SIZE}", "ETag": '"1"'} | {name: value}
        result = outcome(server, lambda _, __, sent=headers: [head(status, sent), FIRST])
        is_whole = result == FIRST or (name, result) == ("Content-Length", FIRST[:5])
        assert isinstance(result, FetchError) or is_whole, (name, value)


@pytest.mark.parametrize("value", [each for each in SENSELESS[:21] if not each.isdecimal()])
def test_a_senseless_length_is_refused_at_once(server: RawServer, value: str) -> None:
    result = outcome(server, lambda *_: [head("200 OK", {"Content-Length": value}), FIRST])
    assert isinstance(result, FetchError)
    assert server.num_asked == 1
    assert "Content-Length" in str(result)


@pytest.mark.parametrize(
    "target",
    ["http://[", "http://x:a/", f"http://{'a' * 80}.x/", "file:///etc/passwd", "\xff", "?"],
)
def test_a_redirect_that_leads_nowhere(server: RawServer, target: str) -> None:
    result = outcome(server, lambda *_: [head("302 Found", {"Location": target}), FIRST])
    assert isinstance(result, FetchError)


def test_each_status(server: RawServer) -> None:
    """None but 200 gives a file; there is no number that breaks it."""
    for status in (*range(100, 600, 7), 200, 204, 206, 304, 600, 999, 0, -1, 2000, "", "x"):
        sent = [head(f"{status} x", {"Content-Length": f"{SIZE}"}), FIRST]
        result = outcome(server, lambda *_, sent=sent: sent)
        assert (result == FIRST) == (status == 200), status


CHUNKS = (b"-1", b"-5", b"-0", b"zz", b"0x5", b"", b"+5", b"1_0", b"f" * 30, b"f" * 5000, b"\xff")


@pytest.mark.parametrize("size", CHUNKS)
def test_chunks_of_senseless_length(server: RawServer, size: bytes) -> None:
    """A negative one is not read to the end of what the server sends."""
    headers = {"Transfer-Encoding": "chunked"}
    long = [size + b"\r\n", *[bytes(1 << 20)] * 32]
    tracemalloc.start()
    try:
        result = outcome(server, lambda *_: [head("200 OK", headers), *long])
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert isinstance(result, FetchError) or result == b""


def endless(piece: bytes) -> Iterator[bytes]:
    """Up to a GiB, which nobody should ask for."""
    return itertools.repeat(piece, (1 << 30) // len(piece))


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        ("200 OK", {}, bytes(1 << 16)),
        ("200 OK", {"Transfer-Encoding": "chunked"}, b"8000\r\n" + bytes(0x8000) + b"\r\n"),
        ("200 OK", {"Transfer-Encoding": "chunked"}, b"0\r\n" + b"a: b\r\n" * 1000),
        ("200 OK", {"Transfer-Encoding": "chunked"}, b"1" * 4096),
        ("302 Found", {"Location": "/b"}, bytes(1 << 16)),
        ("404 Not Found", {}, bytes(1 << 16)),
        ("206 Partial Content", {"Content-Range": "bytes 0-9/10"}, bytes(1 << 16)),
        ("200 OK", {"Content-Encoding": "gzip"}, bytes(1 << 16)),
        ("200 OK\r\nX: " + "a" * 4000, {}, b"a" * 4096),
        ("200 OK" + "\r\nX: a" * 1000, {}, b"a" * 4096),
    ],
)
def test_a_body_without_an_end(
    server: RawServer,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    headers: dict[str, str],
    body: bytes,
) -> None:
    """It is refused when half of the room is full, and takes no memory."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4 << 20))
    sent = 0

    def answer(*_: object) -> Iterator[bytes]:
        nonlocal sent
        yield head(status, headers)
        for piece in endless(body):
            sent += len(piece)
            yield piece

    tracemalloc.start()
    try:
        result = outcome(server, answer)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert isinstance(result, FetchError)
    assert sent < 256 << 20


@pytest.mark.parametrize("step", [0, 1, 100])
@pytest.mark.parametrize("takes_ranges", [True, False])
@pytest.mark.parametrize("is_chunked", [True, False])
def test_a_server_that_always_cuts_the_connection(
    server: RawServer, step: int, takes_ranges: bool, is_chunked: bool
) -> None:
    """A few bytes more each time are no progress."""
    tags = {"ETag": '"1"'}

    def answer(number: int, asked: Mapping[str, str]) -> Iterator[bytes]:
        start = _asked_start(asked) if takes_ranges else 0
        rest = FIRST[start:]
        extra = {"Content-Range": f"bytes {start}-{SIZE - 1}/{SIZE}"} if start else {}
        length = {"Transfer-Encoding": "chunked"} if is_chunked else {"Content-Length": f"{SIZE}"}
        if start and not is_chunked:
            length = {"Content-Length": f"{len(rest)}"}
        yield head("206 x" if start else "200 x", tags | extra | length)
        yield f"{len(rest):x}\r\n".encode() * is_chunked
        yield rest[: step * (1 if takes_ranges else number)]

    result = outcome(server, answer)
    assert isinstance(result, FetchError)
    assert "the connection ended" in str(result)
    assert server.num_asked == 5


def _asked_start(asked: Mapping[str, str]) -> int:
    return int(asked.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))


CONTENTS = {"first": FIRST, "second": SECOND}
TAGS: dict[str, Callable[[str], str | None]] = {
    "strong": lambda version: f'"{version}"',
    "weak": lambda _: 'W/"same"',
    "bare": lambda _: "same",
    "open": lambda _: '"same',
    "two": lambda _: '"a", "b"',
    "empty": lambda _: "",
    "absent": lambda _: None,
}
DATES: dict[str, Callable[[str], str | None]] = {
    "own": lambda version: f"Thu, 01 Mar 2012 00:00:0{len(version) % 2} GMT",
    "now": lambda _: "Fri, 02 Mar 2012 00:00:00 GMT",  # which it is, so that it may change again
    "word": lambda _: "yesterday",
    "zoneless": lambda _: "01 Mar 2012 00:00:00 -0000",
    "absent": lambda _: None,
}
NOW = "Fri, 02 Mar 2012 00:00:00 GMT"


def version_headers(version: str, tag: str, date: str) -> dict[str, str]:
    """How a server describes a version; what describes none may be the same for both."""
    found = {"ETag": TAGS[tag](version), "Last-Modified": DATES[date](version), "Date": NOW}
    return {name: value for name, value in found.items() if value is not None}


LATER = st.fixed_dictionaries(
    {
        "version": st.sampled_from(sorted(CONTENTS)),
        "status": st.sampled_from([200, 206, 206, 206, 416, 503]),
        "tag": st.sampled_from(["same", "same", *TAGS]),
        "date": st.sampled_from(["same", "same", *DATES]),
        "shift": st.sampled_from([0, 0, 0, -1, 1, -1000, SIZE]),
        "range": st.sampled_from(
            ["true", "true", "true", "star", "short", "total", "", *SENSELESS]
        ),
        "length": st.sampled_from(["true", "true", None, -1, 1, "-1", "x"]),
        "cut": st.sampled_from([None, None, 0, 700]),
        "always": st.booleans(),
    }
)


def later_answer(kind: dict[str, Any], tag: str, date: str, start: int) -> Iterator[bytes]:
    """An answer whose bytes are those that it says, or that says nothing sensible."""
    content = CONTENTS[kind["version"]]
    first = min(max(start + kind["shift"], 0), SIZE - 1) if kind["status"] == 206 else 0
    last = SIZE - 1 if kind["range"] != "short" else (first + SIZE) // 2
    body = content[first : last + 1] if kind["status"] == 206 else content
    tags = (
        (tag if kind["tag"] == "same" else kind["tag"]),
        (date if kind["date"] == "same" else kind["date"]),
    )
    headers = version_headers(kind["version"], *tags)
    said = {
        "true": f"bytes {first}-{last}/{SIZE}",
        "short": f"bytes {first}-{last}/{SIZE}",
        "star": f"bytes {first}-{last}/*",
        "total": f"bytes {first}-{last}/{SIZE + 1}",
    }
    if kind["status"] == 206:
        headers["Content-Range"] = said.get(kind["range"], kind["range"])
    length = kind["length"]
    if length is not None:
        length = len(body) if length == "true" else length
        headers["Content-Length"] = f"{len(body) + length if length in (-1, 1) else length}"
    yield head(f"{kind['status']} x", headers)
    yield body[: kind["cut"]]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(TAGS)),
    st.sampled_from(sorted(DATES)),
    st.booleans(),
    st.lists(LATER, min_size=1, max_size=3),
)
def test_a_resumed_file_is_of_one_version(
    server: RawServer, tag: str, date: str, has_length: bool, later: list[dict[str, Any]]
) -> None:
    """Whatever comes behind an answer that was cut: the rest of it, all of another one, or a line.

    Bytes may lack at the end, as a length may lie; none is of another version or in another place.
    """

    def answer(number: int, asked: Mapping[str, str]) -> Iterable[bytes]:
        if number == 1:
            headers = version_headers("first", tag, date)
            length = (
                {"Content-Length": f"{SIZE}"} if has_length else {"Transfer-Encoding": "chunked"}
            )
            size = b"" if has_length else f"{SIZE:x}\r\n".encode()
            return [head("200 OK", headers | length), size + FIRST[:1000]]
        kind = later[min(number - 2, len(later) - 1)]
        if number > 4 and not kind["always"]:
            headers = version_headers("second", tag, date) | {"Content-Length": f"{SIZE}"}
            return [head("200 OK", headers), SECOND]
        return later_answer(kind, tag, date, _asked_start(asked))

    result = outcome(server, answer)
    if isinstance(result, bytes):
        assert any(content.startswith(result) for content in CONTENTS.values())
        assert result


WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, float("inf"), float("nan"), "", "x", "a\nb", "\x00", [], ["x"], {},
    {"a": 1}, 10**30, "x" * 100_000, "\ud800", f"{NOW}\n", '"a\nb"', "Thu, 01 Mar 2012 00:00:00",
)  # fmt: skip
VERSION = {"etag": None, "modified": "Thu, 01 Mar 2012 00:00:00 GMT", "date": NOW, "total": SIZE}


@pytest.mark.parametrize("key", ["url", "etag", "modified", "date", "total", "more"])
def test_a_note_of_wrong_types(server: RawServer, tmp_path: Path, key: str) -> None:
    """The part beside it is used only if the note says what a server said."""
    url = f"{server.url}/{NAME}"
    server.answer = lambda *_: [head("200 OK", {"Content-Length": f"{SIZE}"}), SECOND]
    part, note = tmp_path / "part", tmp_path / "part.json"
    for value in WRONG:
        part.write_bytes(FIRST[:1000])
        note.write_text(json.dumps({"url": url} | VERSION | {key: value}))
        follow = ResumingDownloader(Download(name=NAME, url=url), part, "by hand", wait_seconds=0)
        follow(url, str(tmp_path / NAME), None)
        assert (tmp_path / NAME).read_bytes() == SECOND


DEEP = "[" * 100_000, '{"a":' * 100_000
ENTRY = {"sha256": "0" * 64, "bytes": 5, "url": "https://a"}


def checksum_files() -> Iterator[str]:
    """Files that are no list of checksums."""
    yield from ("", "{", "[]", "[1]", "null", "3", '"x"', "NaN", "9" * 5000, *DEEP, "\ud800")
    yield " " * (2 << 20)
    for value in WRONG[1:]:
        if value != {}:
            yield json.dumps({"a": value})
        for key in ENTRY:
            if not (key == "url" and isinstance(value, str)) and (key, value) != ("bytes", 0):
                yield json.dumps({"a": ENTRY | {key: value}})
    for key in ENTRY:
        yield json.dumps({"a": {name: each for name, each in ENTRY.items() if name != key}})
    yield json.dumps({"a": ENTRY | {"more": 1}})


def test_checksums_that_are_none(tmp_path: Path) -> None:
    """One line, and the file stays as it is."""
    path = tmp_path / "checksums.json"
    texts = list(checksum_files())
    for text in texts:
        path.write_text(text, errors="surrogatepass")
        with pytest.raises(DataError, match=r"cannot be read as checksums \(.*\): remove") as error:
            Checksums(tmp_path)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 600
    assert len(texts) > 50
    path.write_text(json.dumps({"a": ENTRY}))
    assert Checksums(tmp_path).sha256("a") == "0" * 64
