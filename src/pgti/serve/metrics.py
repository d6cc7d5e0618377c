"""What a server counts, for Prometheus."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

__all__ = ["MEDIA_TYPE", "ServeMetrics"]

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class ServeMetrics:
    """The metrics of one server.

    Attributes:
        requests: by route, method and status.
        request_seconds: by route, from the first byte to the last.
        in_flight: requests that have no answer yet.
        waiting: requests for forecasts that wait or are computed.
        forecast_seconds: of a forecast, without reading the request and writing the answer.
        windows: that were forecast.
        epoch: that the model was trained for.
        loaded: when it was loaded, in seconds from 1970.
        reloads: by outcome, "done" or "failed".
    """

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "pgti_requests",
            "Requests that were answered.",
            ("route", "method", "status"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "pgti_request_seconds",
            "Seconds from a request to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "pgti_requests_in_flight", "Requests without an answer.", registry=registry
        )
        self.waiting = Gauge(
            "pgti_forecasts_waiting",
            "Requests for forecasts that wait or are computed.",
            registry=registry,
        )
        self.forecast_seconds = Histogram(
            "pgti_forecast_seconds", "Seconds of a forecast.", buckets=_SECONDS, registry=registry
        )
        self.windows = Counter("pgti_windows_forecast", "Windows forecast.", registry=registry)
        self.epoch = Gauge("pgti_model_epoch", "Epochs of the model's training.", registry=registry)
        self.loaded = Gauge(
            "pgti_model_loaded_timestamp_seconds", "When the model was loaded.", registry=registry
        )
        self.reloads = Counter(
            "pgti_model_reloads",
            "Times that a new checkpoint was loaded, or could not be.",
            ("outcome",),
            registry=registry,
        )
        for outcome in ("done", "failed"):
            self.reloads.labels(outcome)

    def to_text(self) -> bytes:
        """All of them in the format of Prometheus."""
        return generate_latest(self._registry)
