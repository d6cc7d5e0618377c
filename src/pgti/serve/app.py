"""The routes of the server."""

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException

import pgti
from pgti.errors import PgtiError, name_flags
from pgti.serve import openapi
from pgti.serve.answers import JSON, Layout, choose_media_type, encode_forecasts
from pgti.serve.bodies import inflate, read_body
from pgti.serve.dashboard import OPEN_PATHS, add_dashboard
from pgti.serve.facts import about_forecasts, describe_model
from pgti.serve.guard import Guard
from pgti.serve.metrics import MEDIA_TYPE, ServeMetrics
from pgti.serve.options import ServeOptions
from pgti.serve.problems import RequestError, describe_invalid, problem_of, problem_response
from pgti.serve.readings import parse_inputs
from pgti.serve.schemas import Metadata
from pgti.serve.state import ServedRun
from pgti.serve.work import Worker

__all__ = ["build_app"]

_OPEN_PATHS = frozenset(("/healthz", "/readyz", "/docs", "/openapi.json", *OPEN_PATHS))


def build_app(served: ServedRun, options: ServeOptions, metrics: ServeMetrics) -> FastAPI:
    """The application of a run.

    Args:
        served: the run.
        options: limits and the token.
        metrics: those of `served`.
    """
    worker = Worker(options.max_waiting, metrics)

    @contextlib.asynccontextmanager
    async def live(_: FastAPI) -> AsyncIterator[None]:
        """Prepare the model, and follow its checkpoints until the server ends."""
        worker.start(partial(_named, served.prepare))
        following = asyncio.create_task(_follow(served, options.reload_seconds))
        gc.collect()
        gc.freeze()  # collections need not look at what is there for good
        yield
        gc.unfreeze()
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        await asyncio.to_thread(worker.stop)

    app = FastAPI(
        title="pgti",
        summary="Forecasts of a sensor network",
        version=pgti.__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=live,
    )
    _handle_errors(app)
    _add_forecasts(app, served, options, worker)
    _add_state(app, served, options, metrics)
    add_dashboard(app, served, worker, options)
    openapi.add_description(app)
    app.add_middleware(Guard, options=options, metrics=metrics, open_paths=_OPEN_PATHS)
    return app


async def _follow(served: ServedRun, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        await asyncio.to_thread(served.reload_if_changed)


def _named(work: Any) -> Any:
    """Messages name arguments, which fields of requests are, where the command line has flags."""
    with name_flags(False):
        return work()


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def refuse(_: Request, error: RequestError) -> Response:
        return problem_response(error)

    @app.exception_handler(PgtiError)
    async def refuse_input(_: Request, error: PgtiError) -> Response:
        return problem_response(problem_of(error))

    @app.exception_handler(RequestValidationError)
    async def refuse_parameters(_: Request, error: RequestValidationError) -> Response:
        return problem_response(RequestError(422, describe_invalid(error.errors())))

    @app.exception_handler(HTTPException)
    async def refuse_route(_: Request, error: HTTPException) -> Response:
        return problem_response(RequestError(error.status_code, error.detail, error.headers))


def _add_forecasts(app: FastAPI, served: ServedRun, options: ServeOptions, worker: Worker) -> None:
    @app.post(
        "/v1/forecast",
        summary="Forecast from readings, or from the run's store as it is now",
        openapi_extra=openapi.FORECAST_BODY,
        responses=openapi.FORECAST_ANSWERS,
    )
    async def forecast(
        request: Request,
        intervals: Annotated[
            list[Annotated[float, Query(gt=0, lt=1)]],
            Query(description="probabilities to cover, each its own parameter", max_length=20),
        ] = [],  # noqa: B006 - FastAPI copies it
        layout: Annotated[Layout, Query(description="of JSON")] = "records",
    ) -> Response:
        ends = time.monotonic() + options.timeout_seconds
        media_type = choose_media_type(request.headers.get("accept", ""))
        if not served.is_ready:
            raise RequestError(503, "the model is being prepared: try again", {"Retry-After": "5"})
        with worker.enter() as place:
            body = await read_body(request, options.max_body_bytes, ends - time.monotonic())

            def work() -> bytes:
                content = inflate(
                    body, request.headers.get("content-encoding", ""), options.max_body_bytes
                )
                given = parse_inputs(
                    content,
                    request.headers.get("content-type", ""),
                    served.model.run.store.meta.channels,
                    options.max_readings,
                )
                model, frame = served.forecast(
                    given.readings,
                    future=given.future,
                    options=given.options,
                    intervals=intervals,
                )
                about = about_forecasts(model, frame, is_own_layout=given.is_own_layout)
                return encode_forecasts(frame, about, media_type, layout)

            content = await place.run(partial(_named, work), ends - time.monotonic())
        return Response(content, media_type=media_type, headers={"Vary": "Accept"})


def _add_state(
    app: FastAPI, served: ServedRun, options: ServeOptions, metrics: ServeMetrics
) -> None:
    @app.get("/healthz", summary="Whether the server runs", responses=openapi.TEXT_ANSWER)
    async def health() -> Response:
        return Response("ok\n", media_type="text/plain")

    @app.get("/readyz", summary="Whether the model is ready", responses=openapi.READY_ANSWERS)
    async def ready() -> Response:
        if not served.is_ready:
            raise RequestError(503, "the model is being prepared", {"Retry-After": "5"})
        return Response("ready\n", media_type="text/plain")

    @app.get("/metrics", summary="Metrics for Prometheus", responses=openapi.METRICS_ANSWERS)
    async def show_metrics() -> Response:
        return Response(metrics.to_text(), media_type=MEDIA_TYPE)

    @app.get(
        "/v1/metadata",
        summary="Sensors, channels, steps, units and limits",
        response_model=Metadata,
        responses=openapi.REFUSALS,
    )
    async def metadata() -> Response:
        return Response(to_json(describe_model(served.model, options)), media_type=JSON)
