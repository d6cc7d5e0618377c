"""The body of a request, within limits of its size and time."""

import asyncio
import zlib

from fastapi import Request
from starlette.requests import ClientDisconnect

from pgti.display import size_text
from pgti.serve.problems import RequestError

__all__ = ["inflate", "read_body"]

_ENCODINGS = {"": 0, "identity": 0, "gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


async def read_body(request: Request, max_bytes: int, seconds: float) -> bytes:
    """The body as it was sent, compressed or not.

    Raises:
        RequestError: if it is larger than the limit, or does not arrive, or not in time.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isascii() and declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    content = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                content += chunk
                if len(content) > max_bytes:
                    raise _too_large(max_bytes)
    except TimeoutError:
        raise RequestError(
            408, f"the body did not arrive within {seconds:g} s: send it faster"
        ) from None
    except ClientDisconnect:  # nobody reads the answer, which the metrics count
        raise RequestError(400, "the connection ended within the body: send it again") from None
    return bytes(content)


def inflate(content: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body without its Content-Encoding.

    Raises:
        RequestError: if the encoding is not known, the body is damaged, or larger than the limit.
    """
    window = _ENCODINGS.get(encoding.strip().lower())
    if window is None:
        raise RequestError(
            415,
            f"the Content-Encoding is {encoding!r}: use gzip, deflate or none",
            {"Accept-Encoding": "gzip, deflate, identity"},
        )
    if not window:
        return content
    decoder = zlib.decompressobj(window)
    try:
        inflated = decoder.decompress(content, max_bytes + 1)
    except zlib.error:
        raise RequestError(400, f"the body is not {encoding}: compress it again") from None
    if len(inflated) > max_bytes:
        raise _too_large(max_bytes)
    if not decoder.eof or decoder.unused_data:
        raise RequestError(400, f"the body is not one whole {encoding} stream: compress it again")
    return inflated


def _too_large(max_bytes: int) -> RequestError:
    return RequestError(
        413,
        f"the body is larger than {size_text(max_bytes)}: send the newest rows alone",
        {"Connection": "close"},
    )
