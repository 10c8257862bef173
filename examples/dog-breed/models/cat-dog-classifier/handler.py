"""Cat or dog? Answers `It's a cat!`, `dog` or `neither a cat nor a dog`, one per instance.

The word `dog` is what the graph's condition looks for; a cat's answer goes straight to the client.
"""

from typing import Any

import imagenet

ANSWERS = {"cat": "It's a cat!", "dog": "dog", None: "neither a cat nor a dog"}


class CatDogClassifier:
    """TorchServe handler: `initialize` once, `handle` per request."""

    def initialize(self, context: Any) -> None:
        self.network = imagenet.Network(context)

    def handle(self, data: list[Any], context: Any) -> list[str]:
        network = self.network
        return [
            ANSWERS[imagenet.decide(row, network.groups)] for row in network.probabilities(data)
        ]
