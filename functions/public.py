"""What user code may import, though it need not: base classes with the hooks, and `serve`.

from functions import Model, serve

class Doubler(Model):
    def predict(self, payload, headers):
        return {"predictions": [2 * x for x in payload["instances"]]}

if __name__ == "__main__":
    serve(Doubler)
"""

import sys
from collections.abc import Sequence
from typing import Any


class Model:
    """Hooks in KServe's spelling. Override what you need; each may be sync or `async`.

    preprocess(payload, headers) -> predict(payload, headers) -> postprocess(result, headers);
    `explain` takes predict's place for `:explain`. V1 gives the parsed body, V2 and gRPC an
    InferRequest.
    """

    def __init__(self, name: str = "model") -> None:
        self.name = name

    def load(self) -> bool:
        """Get ready; called once, before the first request, beside a listener that answers 503."""
        return True


class Transformer(Model):
    """A model without `predict` of its own: the server calls the predictor in its place."""


def serve(model_class: type[Any], argv: Sequence[str] | None = None) -> None:
    """Serve a class of the running program; flags are those of `python -m functions`. Does not
    return."""
    from .__main__ import main

    arguments = list(sys.argv[1:] if argv is None else argv)
    module = sys.modules[model_class.__module__]
    file = getattr(module, "__file__", None)
    reference = f"{file if file else model_class.__module__}:{model_class.__qualname__}"
    sys.exit(main(["--model-class", reference, *arguments]))
