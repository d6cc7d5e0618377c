"""Downloading over connections that end, from servers that fail."""

import contextlib
import json
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pgti.datasets import Dataset, Download, FetchCallbacks, FetchOptions, fetch_dataset
from pgti.datasets.download import ResumingDownloader
from pgti.errors import FetchError
from pgti.store import SeriesStore

from .file_server import FileServer, Served
from .published_files import chickenpox

CONTENT = bytes(np.random.default_rng(1).integers(0, 256, 3_000_000, dtype=np.uint8))
NAME = "a.bin"


def names(folder: Path) -> list[str]:
    """Names of what is in a folder, in order."""
    return sorted(path.name for path in folder.iterdir())


def downloader(server: FileServer, folder: Path) -> ResumingDownloader:
    """A downloader of the file `NAME`."""
    download = Download(name=NAME, url=f"{server.url}/{NAME}")
    return ResumingDownloader(download, folder / f"{NAME}.part", "do it by hand", wait_seconds=0)


def download(server: FileServer, folder: Path) -> bytes:
    """The content of the downloaded file, which is alone in its folder."""
    downloader(server, folder)(f"{server.url}/{NAME}", str(folder / NAME), None)
    assert names(folder) == [NAME]
    return (folder / NAME).read_bytes()


def note_of(server: FileServer, total: int | None) -> str:
    """What is beside a part."""
    tag = '"one"'
    note = {"etag": tag, "modified": None, "date": None, "total": total}
    return json.dumps({"url": f"{server.url}/{NAME}"} | note)


def test_a_connection_that_ends_is_gone_on_with(server: FileServer, tmp_path: Path) -> None:
    """Each request asks for what is missing, of the same file; nothing comes twice."""
    served = server.files[NAME] = Served(CONTENT, cuts=[1_000_000, 500_000])
    shown: list[tuple[int, int | None]] = []
    follow = downloader(server, tmp_path)
    follow._progress = lambda done, total: shown.append((done, total))
    follow(f"{server.url}/{NAME}", str(tmp_path / NAME), None)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    (first, second, third) = server.asked
    assert first == (NAME, None, None)
    assert (second[2], third[2]) == (served.etag, served.etag)
    offsets = [int(asked[1].removeprefix("bytes=")[:-1]) for asked in (second, third) if asked[1]]
    assert 0 < offsets[0] <= 1_000_000 < offsets[1] <= 1_500_000
    assert shown == sorted(shown)
    assert shown[-1] == (len(CONTENT), len(CONTENT))


def test_a_file_that_changed_meanwhile_comes_whole(server: FileServer, tmp_path: Path) -> None:
    """Halves of two files are never joined: the server sends the new one from its beginning."""
    server.files[NAME] = Served(CONTENT, cuts=[1_000_000] + [0] * 10)
    with pytest.raises(FetchError):
        download(server, tmp_path)
    changed = CONTENT[::-1]
    server.files[NAME] = Served(changed, etag='"two"')
    server.asked.clear()
    assert download(server, tmp_path) == changed
    assert [asked[2] for asked in server.asked] == ['"one"']


@pytest.mark.parametrize(
    ("etag", "modified", "takes_ranges", "is_asked_for_parts"),
    [
        (None, None, True, False),
        ('W/"weak"', None, True, False),
        (None, "Thu, 01 Mar 2012 00:00:00 GMT", True, True),
        ('"strong"', None, False, True),
    ],
)
def test_what_cannot_be_joined_is_downloaded_anew(
    server: FileServer,
    tmp_path: Path,
    etag: str | None,
    modified: str | None,
    takes_ranges: bool,
    is_asked_for_parts: bool,
) -> None:
    """Without a strong tag or a date, and from servers that know no ranges, all of it comes."""
    server.files[NAME] = Served(
        CONTENT, etag=etag, modified=modified, takes_ranges=takes_ranges, cuts=[2_000_000]
    )
    assert download(server, tmp_path) == CONTENT
    assert len(server.asked) == 2
    assert (server.asked[1][1] is not None) == is_asked_for_parts


def test_a_part_that_begins_elsewhere_is_refused(server: FileServer, tmp_path: Path) -> None:
    """A server that sends another part than it was asked for costs the part, not the file."""
    server.files[NAME] = Served(CONTENT, cuts=[1_000_000], lies_about_start=True)
    assert download(server, tmp_path) == CONTENT
    assert [asked[1] is None for asked in server.asked] == [True, False, True]


def test_what_has_come_is_kept_for_the_next_run(server: FileServer, tmp_path: Path) -> None:
    """A connection that fails repeatedly gives one line; the next run resumes from there."""
    server.files[NAME] = Served(CONTENT, cuts=[1_000_000] + [0] * 10)
    with pytest.raises(FetchError) as error:
        download(server, tmp_path)
    kept = (tmp_path / f"{NAME}.part").stat().st_size
    assert f"the connection ended, {kept:,} bytes have arrived and stay" in str(error.value)
    assert str(error.value).endswith("try again later, or do it by hand")
    assert names(tmp_path) == [f"{NAME}.part", f"{NAME}.part.json"]
    server.files[NAME].cuts.clear()
    server.asked.clear()
    assert download(server, tmp_path) == CONTENT
    assert server.asked == [(NAME, f"bytes={kept}-", '"one"')]


def test_a_process_that_died_at_the_last_byte(server: FileServer, tmp_path: Path) -> None:
    """A part that is complete needs no server."""
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    (tmp_path / f"{NAME}.part.json").write_text(note_of(server, len(CONTENT)))
    assert download(server, tmp_path) == CONTENT
    assert server.asked == []


@pytest.mark.parametrize("note", ["{", "[]", '{"url": "elsewhere", "validator": "1", "total": 9}'])
def test_a_part_of_unknown_origin_is_not_used(
    server: FileServer, tmp_path: Path, note: str
) -> None:
    """A part without a note that can be trusted is thrown away."""
    server.files[NAME] = Served(CONTENT)
    (tmp_path / f"{NAME}.part").write_bytes(b"something")
    (tmp_path / f"{NAME}.part.json").write_text(note)
    assert download(server, tmp_path) == CONTENT
    assert server.asked == [(NAME, None, None)]


def test_a_part_that_is_longer_than_the_file(server: FileServer, tmp_path: Path) -> None:
    """A range that the server cannot satisfy costs the part, not the file."""
    server.files[NAME] = Served(CONTENT)
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT + b"more")
    (tmp_path / f"{NAME}.part.json").write_text(note_of(server, None))
    assert download(server, tmp_path) == CONTENT
    assert len(server.asked) == 2


def test_a_busy_server_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    """An answer that passes is waited for, up to a number of times."""
    server.files[NAME] = Served(CONTENT, statuses=[503, 429, 500])
    assert download(server, tmp_path) == CONTENT
    server.files[NAME].statuses = [503] * 20
    with pytest.raises(FetchError, match="the server answers 503 Service Unavailable; try again"):
        download(server, tmp_path / "..")


@pytest.mark.parametrize(
    ("name", "served", "reason"),
    [
        ("a.bin", None, "the server answers 404 Not Found"),
        ("a.bin", Served(b"", statuses=[403]), "the server answers 403 Forbidden"),
        ("a.bin", Served(b"data", content_type="text/html; charset=utf-8"), "a web page arrived"),
        ("a.bin", Served(b"\n <!DOCTYPE html><p>Sign in"), "a web page arrived"),
        ("a.bin", Served(b""), "what arrived begins with b''"),
        ("a.zip", Served(b"quota exceeded"), "what arrived begins with b'quota ex'"),
        ("a.h5", Served(b"PK\x03\x04"), "what arrived begins with b'PK"),
    ],
)
def test_what_is_no_file_is_refused(
    server: FileServer, tmp_path: Path, name: str, served: Served | None, reason: str
) -> None:
    """Errors and pages that pass for files are one line that names file and URL; nothing stays."""
    if served is not None:
        server.files[name] = served
    url = f"{server.url}/{name}"
    follow = ResumingDownloader(Download(name=name, url=url), tmp_path / "part", "do it by hand")
    with pytest.raises(FetchError) as error:
        follow(url, str(tmp_path / name), None)
    assert reason in str(error.value)
    assert str(error.value).startswith(f"{name} could not be downloaded from {url}: ")
    assert names(tmp_path) == []
    assert len(server.asked) == 1


def test_no_network(server: FileServer, tmp_path: Path) -> None:
    """Where nobody answers it is said at once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/{NAME}"
        follow = ResumingDownloader(Download(name=NAME, url=url), tmp_path / "part", "by hand")
        with pytest.raises(FetchError, match=r"there is no connection \(.*[Rr]efused\); try again"):
            follow(url, str(tmp_path / NAME), None)
    assert server.asked == []
    assert names(tmp_path) == []


def test_a_certificate_that_nobody_vouches_for(server: FileServer, tmp_path: Path) -> None:
    """TLS is verified: a server with a certificate of its own making is refused."""
    del server
    if shutil.which("openssl") is None:
        pytest.skip("needs the command openssl, to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    subprocess.run(
        [*command, *subject, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as listening:
        listening.handle_error = lambda *_: None  # type: ignore[method-assign] # the client leaves
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        thread = threading.Thread(target=_handle_one, args=(listening,))
        thread.start()
        url = f"https://127.0.0.1:{listening.server_address[1]}/{NAME}"
        follow = ResumingDownloader(Download(name=NAME, url=url), tmp_path / "part", "by hand")
        with pytest.raises(FetchError, match="its certificate is not trusted"):
            follow(url, str(tmp_path / NAME), None)
        thread.join()


def _handle_one(listening: HTTPServer) -> None:
    with contextlib.suppress(OSError):  # the client ends the handshake
        listening.handle_request()


def test_a_way_that_leaves_https_is_refused(tmp_path: Path) -> None:
    """An https address may not lead to one without."""
    follow = ResumingDownloader(Download(name=NAME, url="https://a/b"), tmp_path / "part", "x")
    hop = SimpleNamespace(url="https://a/b")
    answer = SimpleNamespace(history=[hop], url="http://c/d", status_code=200, headers={})
    with pytest.raises(FetchError, match="leads to http://c/d, which is not https"):
        follow._check_answer(answer)
    answer.url = "https://c/d"
    follow._check_answer(answer)


def test_a_disk_without_room_is_told_before_it_is_full(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size that the server announces is compared with what is free."""
    usage = SimpleNamespace(free=2_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    server.files[NAME] = Served(CONTENT)
    with pytest.raises(FetchError, match=r"needs 3,000,000 bytes more and .* has 2,000,000 free"):
        download(server, tmp_path)
    assert NAME not in names(tmp_path)


def test_a_disk_that_fills_up(server: FileServer, tmp_path: Path) -> None:
    """What could be written stays under its own name; with room again the rest is fetched."""
    server.files[NAME] = Served(CONTENT)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(FetchError, match=rf"{NAME}.part cannot be written \(File too large\)"):
            download(server, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert names(tmp_path) == [f"{NAME}.part", f"{NAME}.part.json"]
    server.asked.clear()
    assert download(server, tmp_path) == CONTENT
    assert server.asked[0][1] is not None


def test_processes_that_fetch_at_once_download_once(
    server: FileServer, pointed: Callable[..., Dataset], tmp_path: Path
) -> None:
    """The second waits for the first, and uses what it has got."""
    dataset = pointed("Chickenpox-Hungary", server.url)
    (name,) = (each.name for each in dataset.downloads)
    served = server.files[name] = Served(chickenpox(), gate=threading.Event())
    assert served.gate is not None
    script = (
        "import sys; from dataclasses import replace\n"
        "from pgti.datasets import catalogue\n"
        "from pgti.datasets.fetch import fetch\n"
        "entry = catalogue.DATASETS['Chickenpox-Hungary']\n"
        "downloads = tuple(replace(d, url=f'{sys.argv[1]}/{d.name}') for d in entry.downloads)\n"
        "catalogue.DATASETS = {entry.name: replace(entry, downloads=downloads)}\n"
        "fetch(entry.name, sys.argv[2], cache=sys.argv[3])\n"
    )
    cache, said = tmp_path / "cache", []

    def heard(line: str) -> None:
        said.append(line)
        served.gate.set()  # type: ignore[union-attr] # the other process may have the rest now

    command = [sys.executable, "-c", script, server.url, tmp_path / "store1", cache]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as other:
        while not server.asked:
            assert other.poll() is None
            time.sleep(0.01)
        options = FetchOptions()
        callbacks = FetchCallbacks(log=heard)
        fetch_dataset(dataset.name, tmp_path / "store2", options, cache=cache, callbacks=callbacks)
        _, errors = other.communicate(timeout=60)
    assert (other.returncode, errors) == (0, "")
    assert said == ["another process is fetching Chickenpox-Hungary: waiting for it"]
    assert [asked[0] for asked in server.asked] == [name]
    assert names(cache / dataset.name.lower()) == sorted([name, "checksums.json"])
    first, second = (SeriesStore.open(tmp_path / each) for each in ("store1", "store2"))
    assert first.fingerprint == second.fingerprint
