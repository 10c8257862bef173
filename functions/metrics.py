"""Prometheus metrics: counters and histograms per model, written in the text format 0.0.4.

Observing costs a bisect and two additions, no locks: everything is observed on the event loop. With
several workers each one writes its numbers to a file in a directory they share, and whichever
worker is scraped adds them up (KServe answers with the numbers of one process only).
"""

import json
import logging
import os
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .seldon_metrics import UserMetrics

logger = logging.getLogger(__name__)

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

TIME_BUCKETS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
)  # fmt: skip
SIZE_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)

HELP = {
    "turnout_requests_total": "Requests by model, protocol and status code",
    "turnout_queue_seconds": "Time a request waited for the model",
    "request_preprocess_seconds": "Time spent in preprocess",
    "request_predict_seconds": "Time spent in predict",
    "request_postprocess_seconds": "Time spent in postprocess",
    "request_explain_seconds": "Time spent in explain",
    "turnout_batch_size": "Instances joined into one model call",
    "turnout_in_flight": "Requests in progress",
    "turnout_model_ready": "Workers in which the model is loaded",
    "turnout_logger_dropped_total": "Payloads that the request logger had to drop",
    "turnout_handler_metric": "Last value a TorchServe handler reported by name",
}
"""The `request_*_seconds` names and their `model_name` label are KServe's."""

_STAGE_NAMES = {
    "queue": "turnout_queue_seconds",
    "preprocess": "request_preprocess_seconds",
    "predict": "request_predict_seconds",
    "postprocess": "request_postprocess_seconds",
    "explain": "request_explain_seconds",
}


class Histogram:
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class ModelMetrics:
    """Numbers of one model in one process."""

    __slots__ = ("batches", "handler", "requests", "stages")

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        """(protocol, status) -> answers."""
        self.stages: dict[str, Histogram] = {}
        self.batches = Histogram(SIZE_BUCKETS)
        self.handler: dict[str, float] = {}

    def observe(self, protocol: str, status: int, timings: dict[str, float]) -> None:
        key = (protocol, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        stages = self.stages
        for stage, seconds in timings.items():
            histogram = stages.get(stage)
            if histogram is None:
                histogram = stages[stage] = Histogram(TIME_BUCKETS)
            histogram.observe(seconds)

    def to_json(self) -> dict[str, Any]:
        return {
            "requests": [[protocol, status, n] for (protocol, status), n in self.requests.items()],
            "stages": {name: [h.counts, h.total] for name, h in self.stages.items()},
            "batches": [self.batches.counts, self.batches.total],
            "handler": self.handler,
        }

    def add(self, numbers: dict[str, Any]) -> None:
        """Add another process's numbers, as `to_json` wrote them."""
        for protocol, status, n in numbers["requests"]:
            key = (protocol, int(status))
            self.requests[key] = self.requests.get(key, 0) + n
        for name, (counts, total) in numbers["stages"].items():
            _add(self.stages.setdefault(name, Histogram(TIME_BUCKETS)), counts, total)
        _add(self.batches, *numbers["batches"])
        self.handler.update(numbers["handler"])


def _add(histogram: Histogram, counts: list[int], total: float) -> None:
    histogram.counts = [a + b for a, b in zip(histogram.counts, counts, strict=True)]
    histogram.total += total


class Registry:
    """All numbers of this process, and the way to those of its siblings."""

    def __init__(self, shared: Path | None = None) -> None:
        self.models: dict[str, ModelMetrics] = {}
        self.gauges: dict[tuple[str, str], float] = {}
        """(metric, model) -> value of this process; siblings' are added."""
        self.user: list[UserMetrics] = []
        """What user classes of Seldon's contract report."""
        self._shared = shared

    def model(self, name: str) -> ModelMetrics:
        found = self.models.get(name)
        if found is None:
            found = self.models[name] = ModelMetrics()
        return found

    def share(self) -> None:
        """Write this process's numbers for its siblings (with several workers; each heartbeat)."""
        if self._shared is None:
            return
        snapshot = {
            "models": {name: model.to_json() for name, model in self.models.items()},
            "gauges": [[metric, model, value] for (metric, model), value in self.gauges.items()],
            "user": [metrics.to_json() for metrics in self.user],
        }
        file = self._shared / f"{os.getpid()}.json"
        temporary = file.with_suffix(".tmp")
        try:
            temporary.write_text(json.dumps(snapshot), encoding="utf-8")
            temporary.replace(file)
        except OSError as exc:
            logger.warning("metrics cannot be shared between workers: %s", exc)

    def render(self) -> bytes:
        """The text for a scrape: this process and its siblings (dead ones' counters included)."""
        total = Registry()
        for name, model in self.models.items():
            total.model(name).add(model.to_json())
        total.gauges = dict(self.gauges)
        reported = [metrics.to_json() for metrics in self.user]
        for snapshot in self._siblings():
            for name, numbers in snapshot["models"].items():
                total.model(name).add(numbers)
            for metric, model_name, value in snapshot["gauges"]:
                key = (metric, model_name)
                total.gauges[key] = total.gauges.get(key, 0.0) + value
            reported += snapshot["user"]
        return "".join((*total._lines(), *_user_lines(reported))).encode()

    def _siblings(self) -> Iterable[dict[str, Any]]:
        if self._shared is None:
            return
        for file in self._shared.glob("*.json"):
            if file.stem == str(os.getpid()):
                continue
            try:
                snapshot = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if not Path(f"/proc/{file.stem}").exists():
                snapshot["gauges"] = []  # a dead worker's counters stay, its gauges do not
            yield snapshot

    def _lines(self) -> Iterable[str]:
        yield from _family("turnout_requests_total", "counter")
        for name, model in self.models.items():
            for (protocol, status), n in sorted(model.requests.items()):
                labels = f'model_name="{_escape(name)}",protocol="{protocol}",code="{status}"'
                yield f"turnout_requests_total{{{labels}}} {n}\n"
        for stage, metric in _STAGE_NAMES.items():
            found = [(n, m.stages[stage]) for n, m in self.models.items() if stage in m.stages]
            if found:
                yield from _family(metric, "histogram")
                for name, histogram in found:
                    yield from _histogram(metric, name, histogram)
        batched = [(n, m.batches) for n, m in self.models.items() if any(m.batches.counts)]
        if batched:
            yield from _family("turnout_batch_size", "histogram")
            for name, histogram in batched:
                yield from _histogram("turnout_batch_size", name, histogram)
        reported = [(n, m.handler) for n, m in self.models.items() if m.handler]
        if reported:
            yield from _family("turnout_handler_metric", "gauge")
            for name, values in reported:
                for metric, value in sorted(values.items()):
                    labels = f'model_name="{_escape(name)}",metric="{_escape(metric)}"'
                    yield f"turnout_handler_metric{{{labels}}} {value!r}\n"
        for metric in sorted({metric for metric, _ in self.gauges}):
            kind = "counter" if metric.endswith("_total") else "gauge"
            yield from _family(metric, kind)
            for (own, name), value in sorted(self.gauges.items()):
                if own == metric:
                    label = f'{{model_name="{_escape(name)}"}}' if name else ""
                    yield f"{metric}{label} {value:g}\n"


def _user_lines(reported: list[dict[str, Any]]) -> Iterable[str]:
    """What user classes report, of all workers."""
    if not reported:
        return ()
    from .seldon_metrics import UserMetrics

    user = UserMetrics()
    for numbers in reported:
        user.add(numbers)
    return user.lines()


def _family(name: str, kind: str) -> Iterable[str]:
    yield f"# HELP {name} {HELP.get(name, name)}\n# TYPE {name} {kind}\n"


def _histogram(metric: str, model: str, histogram: Histogram) -> Iterable[str]:
    label = f'model_name="{_escape(model)}"'
    running = 0
    for bound, count in zip(histogram.bounds, histogram.counts, strict=False):
        running += count
        yield f'{metric}_bucket{{{label},le="{bound:g}"}} {running}\n'
    running += histogram.counts[-1]
    yield f'{metric}_bucket{{{label},le="+Inf"}} {running}\n'
    yield f"{metric}_sum{{{label}}} {histogram.total!r}\n{metric}_count{{{label}}} {running}\n"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
