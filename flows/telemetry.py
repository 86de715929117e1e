"""Metrics and traces of a run by OpenTelemetry, where they are asked for; nothing is sent anywhere else.

    pip install 'zephyr-flows[otel]'
    OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 zephyr run …

    zephyr.requests.running, .waiting, .limit, .again, .failed      per model
    zephyr.tokens.in, .out                                          per model, per second
    zephyr.rows.done, .wanted                                       per stage

Spans: the flow's and the tasks' (a task is a shard) are Prefect's own, once a provider is there.
"""

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any

from flows.progress import display
from serving.meter import Now

ASKED = "OTEL_EXPORTER_OTLP_ENDPOINT"
EVERY = 10.0
"""Seconds between two exports of metrics."""

PER_MODEL: dict[str, Callable[[Now], float]] = {
    "zephyr.requests.running": lambda now: now.running,
    "zephyr.requests.waiting": lambda now: now.waiting,
    "zephyr.requests.limit": lambda now: now.limit,
    "zephyr.requests.again": lambda now: now.again,
    "zephyr.requests.failed": lambda now: now.failed,
    "zephyr.tokens.in": lambda now: now.tokens_in,
    "zephyr.tokens.out": lambda now: now.tokens_out,
}

log = logging.getLogger(__name__)
_providers: list[Any] = []


def flush() -> None:
    """Send how things stand now; a short stage would otherwise end between two exports."""
    for provider in _providers:
        provider.force_flush()


def start() -> None:
    """Export from now until this process ends, which sends what is left. Does nothing where nobody asked."""
    if not os.environ.get(ASKED):
        return
    try:
        _start()
    except ImportError as error:
        log.warning("%s is set and %s is missing: pip install 'zephyr-flows[otel]'", ASKED, error.name)


def _start() -> None:
    from opentelemetry import metrics, trace
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # pyright: ignore[reportMissingImports]
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # pyright: ignore[reportMissingImports]
    from opentelemetry.sdk.metrics import MeterProvider  # pyright: ignore[reportMissingImports]
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # pyright: ignore[reportMissingImports]
    from opentelemetry.sdk.resources import Resource  # pyright: ignore[reportMissingImports]
    from opentelemetry.sdk.trace import TracerProvider  # pyright: ignore[reportMissingImports]
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # pyright: ignore[reportMissingImports]

    if isinstance(metrics.get_meter_provider(), MeterProvider):  # somebody has set up their own
        return
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "zephyr")})
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(), export_interval_millis=EVERY * 1000)
    _providers.append(MeterProvider([reader], resource))
    metrics.set_meter_provider(_providers[0])
    tracing = TracerProvider(resource=resource)
    tracing.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracing)
    _observe(metrics.get_meter("zephyr"), metrics.Observation)


def _observe(meter: Any, observation: Any) -> None:
    def of_models(value: Callable[[Now], float]) -> Callable[[Any], Iterable[Any]]:
        def look(_: Any) -> Iterable[Any]:
            for name, each in list(display().meters.items()):
                if (now := each.now()) is not None:
                    yield observation(value(now), {"model": name})

        return look

    def of_stages(field: str) -> Callable[[Any], Iterable[Any]]:
        def look(_: Any) -> Iterable[Any]:
            for bar in list(display().bars.values()):
                yield observation(getattr(bar, field), {"stage": bar.name})

        return look

    for name, value in PER_MODEL.items():
        meter.create_observable_gauge(name, [of_models(value)])
    meter.create_observable_gauge("zephyr.rows.done", [of_stages("done")])
    meter.create_observable_gauge("zephyr.rows.wanted", [of_stages("total")])
