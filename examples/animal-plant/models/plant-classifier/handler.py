"""Which plant is it? Answers the five likeliest with probabilities, one dict per instance."""

from typing import Any

import imagenet


class PlantClassifier:
    """TorchServe handler: `initialize` once, `handle` per request."""

    def initialize(self, context: Any) -> None:
        self.network = imagenet.Network(context)

    def handle(self, data: list[Any], context: Any) -> list[dict[str, float]]:
        network = self.network
        return [
            imagenet.top(row, network.groups["plant"], network.labels)
            for row in network.probabilities(data)
        ]
