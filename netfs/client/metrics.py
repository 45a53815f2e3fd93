"""``-o metrics=ADDR:PORT``: the report's numbers for Prometheus.

The one place that knows prometheus_client, which is an extra.  Served on the event loop, so that
no number is read while it changes; a loop that hangs does not answer, which is a sign, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from netfs.client.stats import BOUNDS_S

Body = dict[str, Any]

_TIMEOUT_S: Final = 5.0
_MAX_HEAD: Final = 8192


class Collector:
    """Turns one report into metrics."""

    def __init__(self, report: Callable[[], Body], labels: dict[str, str]) -> None:
        self._report = report
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        body = self._report()
        beat = body["beat"]
        yield InfoMetricFamily("netfs", "The mount.", {**self._labels, "version": body["version"]})
        yield _gauge("netfs_link_up", "1 while requests get through.", beat.get("down_s") is None)
        yield _gauge("netfs_link_down_seconds", "How long nothing gets through.", beat["down_s"])
        yield _gauge("netfs_round_trip_seconds", "Shortest of late.", _seconds(beat.get("rtt_ms")))
        yield _gauge("netfs_requests_waiting", "Requests of the kernel that wait.", beat["waiting"])
        yield _gauge("netfs_oldest_request_seconds", "Age of the oldest.", beat.get("oldest_s"))
        yield _gauge("netfs_memory_bytes", "Resident memory of the worker.", body.get("memory"))
        if "files" in body:
            yield from _mounted(body)


def _mounted(body: Body) -> Iterator[Metric]:
    link, files, requests = body["link"], body["files"], body["requests"]
    yield CounterMetricFamily("netfs_reconnects", "Links made anew.", link["reconnects"])
    yield _by_operation("netfs_requests", "Requests of the kernel.", requests["by_operation"])
    yield _by_operation("netfs_request_errors", "Answered with an errno.", requests["errors"])
    yield CounterMetricFamily("netfs_interrupted", "Answered EINTR.", requests["interrupted"])
    counts = list(accumulate(requests["latency"]))
    bounds = [*map(str, BOUNDS_S), "+Inf"]
    yield HistogramMetricFamily(
        "netfs_request_seconds",
        "Requests that had to wait for the server.",
        buckets=list(zip(bounds, counts, strict=True)),
        sum_value=None,
    )
    yield _gauge("netfs_unsent_bytes", "Written, not acknowledged.", files["dirty"])
    yield _gauge("netfs_content_bytes", "Content cached.", files["cached"])
    yield _gauge("netfs_names", "Names cached.", body["names"]["known"])
    yield _gauge("netfs_open_files", "Open files.", files["open_files"])
    yield CounterMetricFamily("netfs_read_hits", "Reads answered from memory.", files["hits"])
    yield CounterMetricFamily("netfs_read_misses", "Reads that had to ask.", files["misses"])
    yield CounterMetricFamily(
        "netfs_ahead_wasted_bytes", "Read ahead and never used.", files["ahead_wasted"]
    )
    yield _gauge(
        "netfs_losses", "Files with data that could not be delivered.", len(files["losses"])
    )


def _gauge(name: str, text: str, value: float | None) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, float(value or 0))


def _seconds(milliseconds: float | None) -> float:
    return (milliseconds or 0.0) / 1e3


def _by_operation(name: str, text: str, counts: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=["operation"])
    for operation, count in counts.items():
        family.add_metric([operation.lower()], count)
    return family


class Metrics:
    """The HTTP end; one answer a connection."""

    def __init__(self, report: Callable[[], Body], labels: dict[str, str]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(Collector(report, labels))
        self._server: asyncio.Server | None = None

    async def start(self, address: str, port: int) -> None:
        """Raises: OSError: the address can't be used."""
        self._server = await asyncio.start_server(self._serve, address, port, limit=_MAX_HEAD)

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head.split(b"\r\n", 1)[0]))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a scraper that misbehaves or has gone gets nothing
        finally:
            writer.close()

    def _answer(self, request: bytes) -> bytes:
        words = request.split()
        if len(words) < 2 or words[0] != b"GET":
            return _response("405 Method Not Allowed", "text/plain", b"GET only\n")
        if words[1].split(b"?")[0] not in (b"/", b"/metrics"):
            return _response("404 Not Found", "text/plain", b"see /metrics\n")
        return _response("200 OK", CONTENT_TYPE_LATEST, generate_latest(self._registry))


def _response(status: str, kind: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
