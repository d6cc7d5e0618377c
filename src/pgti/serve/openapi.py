"""The description of the routes: OpenAPI, and a page of it that asks no other machine."""

import html
import json
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse

from pgti.serve.arrow_streams import MEDIA_TYPE as ARROW
from pgti.serve.metrics import MEDIA_TYPE as METRICS
from pgti.serve.problems import MEDIA_TYPE as PROBLEM
from pgti.serve.schemas import ForecastAnswer, ForecastRequest, ProblemAnswer

__all__ = [
    "FORECAST_ANSWERS",
    "FORECAST_BODY",
    "METRICS_ANSWERS",
    "READY_ANSWERS",
    "REFUSALS",
    "TEXT_ANSWER",
    "add_description",
]

_REFERENCE = "#/components/schemas/{model}"
_BINARY = {"type": "string", "format": "binary"}


def _refusal(text: str) -> dict[str, Any]:
    schema = {"$ref": _REFERENCE.format(model="ProblemAnswer")}
    return {"description": text, "content": {PROBLEM: {"schema": schema}}}


REFUSALS: dict[int | str, dict[str, Any]] = {
    401: _refusal("No token, or another one"),
    405: _refusal("Another method"),
    421: _refusal("Another host than the server's"),
    422: _refusal("A parameter that breaks its rule"),
}
TEXT_ANSWER: dict[int | str, dict[str, Any]] = REFUSALS | {
    200: {"description": "It does", "content": {"text/plain": {"schema": {"type": "string"}}}}
}
READY_ANSWERS = TEXT_ANSWER | {503: _refusal("Not yet")}
METRICS_ANSWERS: dict[int | str, dict[str, Any]] = REFUSALS | {
    200: {"description": "Metrics", "content": {METRICS: {"schema": {"type": "string"}}}}
}
FORECAST_ANSWERS: dict[int | str, dict[str, Any]] = REFUSALS | {
    200: {
        "description": "Forecasts",
        "content": {
            "application/json": {"schema": {"$ref": _REFERENCE.format(model="ForecastAnswer")}},
            ARROW: {"schema": _BINARY},
        },
    },
    400: _refusal("A damaged body"),
    406: _refusal("Another type of answer"),
    408: _refusal("A body that does not arrive in time"),
    409: _refusal("The run's own readings are gone: send some"),
    413: _refusal("Too large a body, or too many readings"),
    415: _refusal("Another type or encoding of the body"),
    422: _refusal("Readings that are not of the run, or break a rule"),
    503: _refusal("Too many requests, or too slow; Retry-After says when to try again"),
}
FORECAST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "content": {
            "application/json": {"schema": {"$ref": _REFERENCE.format(model="ForecastRequest")}},
            ARROW: {"schema": _BINARY},
        },
    }
}


def add_description(app: FastAPI) -> None:
    """Add `/openapi.json` and `/docs`."""
    document: dict[str, Any] = {}

    def describe() -> dict[str, Any]:
        if not document:
            document.update(_describe(app))
        return document

    app.openapi = describe  # type: ignore[method-assign] # as FastAPI's manual says

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(json.dumps(describe()), media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        return HTMLResponse(_page(describe()), headers={"content-security-policy": policy})


def _describe(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, summary=app.summary, routes=app.routes
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for model in (ForecastRequest, ForecastAnswer, ProblemAnswer):
        schema = model.model_json_schema(ref_template=_REFERENCE)
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}, {}]
    return document


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:#222}code,pre{font-size:.9em;background:#f3f4f6;border-radius:4px}"
    "code{padding:.1em .3em}pre{padding:1rem;overflow-x:auto}h2{font-size:1.1rem;margin-top:2rem}"
    "dt{font-weight:600}dd{margin:0 0 .4rem 1.5rem}"
)


def _page(document: dict[str, Any]) -> str:
    """The routes as plain HTML."""
    parts = []
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            parts.append(_route(method.upper(), path, route))
    schemas = json.dumps(document["components"]["schemas"], indent=2)
    info = document["info"]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(info['title'])}: "
        "routes</title><meta name=viewport content='width=device-width'>"
        f"<style>{_STYLE}</style><h1>{html.escape(info['title'])} "
        f"{html.escape(info['version'])}</h1><p>{html.escape(info.get('summary', ''))}. "
        "The same for programs: <a href=/openapi.json>openapi.json</a>.</p>"
        f"{''.join(parts)}<h2>Schemas</h2><pre>{html.escape(schemas)}</pre>"
    )


def _route(method: str, path: str, route: dict[str, Any]) -> str:
    facts = [
        (f"{each['name']} ({each['in']})", each.get("description", ""))
        for each in route.get("parameters", ())
    ]
    content = route.get("requestBody", {}).get("content", {})
    facts += [("body", ", ".join(content))] if content else []
    facts += [(status, each["description"]) for status, each in sorted(route["responses"].items())]
    listed = "".join(
        f"<dt>{html.escape(str(name))}</dt><dd>{html.escape(text)}</dd>" for name, text in facts
    )
    heading = f"<code>{html.escape(method)} {html.escape(path)}</code>"
    return f"<h2>{heading}</h2><p>{html.escape(route.get('summary', ''))}</p><dl>{listed}</dl>"
