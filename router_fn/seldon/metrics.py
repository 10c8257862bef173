"""The orchestrator's Prometheus metrics, with Seldon's names and labels (spec/seldon 2.10).

Label values come from the deployment, statuses and fixed words; clients cannot add series.
"""

from typing import Final

from router_fn.metrics import Histogram, Labels
from router_fn.seldon.graph import Deployment, Predictor, Unit

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)


class SeldonMetrics:
    """What the orchestrator counts: its own requests, and its calls of nodes."""

    def __init__(self, deployment: Deployment) -> None:
        self._name = deployment.name
        self._predictors = {
            unit: predictor
            for predictor in deployment.predictors
            for unit in map(id, predictor.root.walk())
        }
        self.requests = Histogram(
            "seldon_api_executor_server_requests_seconds",
            "Time from a whole request to its answer.",
            BUCKETS,
        )
        self.calls = Histogram(
            "seldon_api_executor_client_requests_seconds", "Time of one call of a node.", BUCKETS
        )

    def _common(self, predictor: Predictor, service: str, method: str, code: int) -> Labels:
        return (
            ("deployment_name", self._name),
            ("predictor_name", predictor.name),
            ("predictor_version", predictor.version),
            ("service", service),
            ("method", method),
            ("code", str(code)),
        )

    def answered(
        self, predictor: Predictor, service: str, method: str, code: int, seconds: float
    ) -> None:
        """A request has been answered."""
        self.requests.observe(self._common(predictor, service, method, code), seconds)

    def called(self, unit: Unit, path: str, method: str, code: int, seconds: float) -> None:
        """A node has answered; code 0: it has not."""
        image, _, version = unit.image.rpartition(":")
        labels = (
            *self._common(self._predictors[id(unit)], path, method, code),
            ("model_name", unit.name),
            ("model_image", image or unit.image),
            ("model_version", version if image else ""),
        )
        self.calls.observe(labels, seconds)

    def render(self) -> bytes:
        """The text format."""
        return ("\n".join((*self.requests.lines(), *self.calls.lines())) + "\n").encode()
