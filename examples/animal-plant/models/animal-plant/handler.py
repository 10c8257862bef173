"""Is the picture an animal or a plant? Answers `animal`, `plant` or `neither`, one per instance."""

from typing import Any

import imagenet


class AnimalPlant:
    """TorchServe handler: `initialize` once, `handle` per request."""

    def initialize(self, context: Any) -> None:
        self.network = imagenet.Network(context)

    def handle(self, data: list[Any], context: Any) -> list[str]:
        network = self.network
        return [
            imagenet.decide(row, network.groups) or "neither" for row in network.probabilities(data)
        ]
