"""Counters and gauges of this process, and their text form for `/metrics`.

Owns the registry; stages reach it only through `observe.events.emit` (counters) and
`gauge` (states read at the moment of scraping).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


class Metrics:
    """The metrics of one process; every method may be called from any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}

    def add(self, name: str, amount: float, labels: Mapping[str, str], *, text: str = "") -> None:
        """Add to a counter; on first use make it, described by the first line of `text`."""
        with self._lock:
            counter = self._counters.get(name)
            if counter is None:
                counter = Counter(
                    name.removesuffix("_total"),
                    text.partition("\n")[0] or name,
                    sorted(labels),
                    registry=self._registry,
                )
                self._counters[name] = counter
        (counter.labels(**labels) if labels else counter).inc(amount)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show the value of `read`, called at each scrape, under `name`; last one wins."""
        with self._lock:
            gauge = self._gauges.get(name)
            if gauge is None:
                gauge = self._gauges[name] = Gauge(name, text, registry=self._registry)
        gauge.set_function(read)

    def value(self, name: str, **labels: str) -> float:
        """Give the present value of a metric, 0.0 where nothing was added yet."""
        return self._registry.get_sample_value(name, labels) or 0.0

    def render(self) -> bytes:
        """Give all metrics in the Prometheus text format."""
        return generate_latest(self._registry)


PROCESS = Metrics()


def add(name: str, amount: float, labels: Mapping[str, str], *, text: str = "") -> None:
    """Add to a counter of this process, as `Metrics.add` does."""
    PROCESS.add(name, amount, labels, text=text)


def gauge(name: str, text: str, read: Callable[[], float]) -> None:
    """Register a gauge of this process."""
    PROCESS.gauge(name, text, read)
