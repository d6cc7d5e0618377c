"""The page `/`: the latest forecasts on the map, and what is forecast of one sensor."""

import gzip
import time
from collections.abc import Callable
from functools import cache, partial
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from pydantic_core import to_json

from pgti.errors import MissingExtraError, name_flags
from pgti.serve.answers import JSON
from pgti.serve.options import ServeOptions
from pgti.serve.pictures import Pictures
from pgti.serve.problems import RequestError
from pgti.serve.state import ServedRun
from pgti.serve.work import Worker

__all__ = ["OPEN_PATHS", "add_dashboard", "plotly_script"]

_FILES = {"dashboard.js": "text/javascript", "dashboard.css": "text/css"}
_PLOTLY = "/static/plotly.js"
OPEN_PATHS = ("/", "/favicon.ico", _PLOTLY, *(f"/static/{name}" for name in _FILES))
"""Of the page without data, which needs no token; the page asks for one."""

_POLICY = (
    "default-src 'none'; script-src 'self'{eval}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'"
)
_WEBGL = 1_500  # sensors above which plotly draws with WebGL, whose code it compiles
_CACHED = {"cache-control": "public, max-age=86400"}


def add_dashboard(app: FastAPI, served: ServedRun, worker: Worker, options: ServeOptions) -> None:
    """Add the page and what it asks for.

    Args:
        app: the application.
        served: the run.
        worker: draws figures, as it forecasts.
        options: the time limit.
    """
    _add_page(app, served)
    _add_figures(app, served, worker, options)


def _add_page(app: FastAPI, served: ServedRun) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        many = served.model.run.store.meta.num_nodes > _WEBGL
        policy = _POLICY.format(eval=" 'unsafe-eval'" if many else "")
        headers = {"content-security-policy": policy}
        return Response(_read("dashboard.html"), media_type="text/html", headers=headers)

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return Response(status_code=204, headers=_CACHED)

    @app.get("/static/{name}", include_in_schema=False)
    async def script(name: str, request: Request) -> Response:
        if name == "plotly.js":
            content = plotly_script()
            headers = {**_CACHED, "vary": "Accept-Encoding", "content-encoding": "gzip"}
            if "gzip" not in request.headers.get("accept-encoding", ""):
                content = gzip.decompress(content)
                del headers["content-encoding"]
            return Response(content, media_type="text/javascript", headers=headers)
        if name not in _FILES:
            raise RequestError(404, "there is no such file")
        return Response(_read(name), media_type=_FILES[name])


def _add_figures(app: FastAPI, served: ServedRun, worker: Worker, options: ServeOptions) -> None:
    pictures = Pictures(served)

    async def draw(work: Callable[[], Any]) -> Response:
        ends = time.monotonic() + options.timeout_seconds
        if not served.is_ready:
            raise RequestError(503, "the model is being prepared: try again", {"Retry-After": "5"})
        with worker.enter() as place:
            drawn = await place.run(partial(_with_arguments, work), ends - time.monotonic())
        return Response(drawn if isinstance(drawn, str) else to_json(drawn), media_type=JSON)

    @app.get("/dashboard/state", include_in_schema=False)
    async def state() -> Response:
        return await draw(pictures.state)

    @app.get("/dashboard/map", include_in_schema=False)
    async def show_map(channel: str, step: Annotated[int, Query(ge=1)]) -> Response:
        return await draw(partial(pictures.map, channel, step))

    @app.get("/dashboard/sensor", include_in_schema=False)
    async def show_sensor(id: str, channel: str) -> Response:
        return await draw(partial(pictures.sensor, id, channel))


def _with_arguments(work: Callable[[], Any]) -> Any:
    with name_flags(False):
        return work()


@cache
def _read(name: str) -> bytes:
    return (files("pgti.serve") / "static" / name).read_bytes()


@cache
def plotly_script() -> bytes:
    """Plotly's script as its package has it, compressed with gzip.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingExtraError("plotly", "serve") from None
    return gzip.compress(get_plotlyjs().encode(), 6)
