"""What the server counts, in the format of Prometheus."""

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters, gauges and histograms of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        shared = {"registry": self.registry}
        self.requests = Counter(
            "tinymu_requests", "Requests, by path and status", ["path", "status"], **shared
        )
        self.prompt_tokens = Counter(
            "tinymu_prompt_tokens", "Audio vectors and tokens of questions", **shared
        )
        self.completion_tokens = Counter(
            "tinymu_completion_tokens", "Generated tokens, without end tokens", **shared
        )
        self.cancelled = Counter(
            "tinymu_cancelled_requests", "Requests whose client went away", **shared
        )
        self.waiting = Gauge("tinymu_queue_length", "Requests that wait", **shared)
        self.running = Gauge("tinymu_running_answers", "Answers that are being decoded", **shared)
        self.request_seconds = Histogram(
            "tinymu_request_seconds",
            "Seconds from a request's head to the end of its response",
            ["path"],
            buckets=_SECONDS,
            **shared,
        )
        self.first_token_seconds = Histogram(
            "tinymu_first_token_seconds",
            "Seconds from a question's arrival to the first token of its answer",
            buckets=_SECONDS,
            **shared,
        )
        self.step_seconds = Histogram(
            "tinymu_step_seconds", "Seconds of one decoding step", buckets=_SECONDS, **shared
        )

    def watch(self, waiting: Callable[[], int], running: Callable[[], int]) -> None:
        """Take the gauges' values from functions."""
        self.waiting.set_function(waiting)
        self.running.set_function(running)

    def text(self) -> bytes:
        """Return all values in Prometheus's text format."""
        return generate_latest(self.registry)
