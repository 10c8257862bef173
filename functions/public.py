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

from .context import current


class Model:
    """Hooks in KServe's spelling. Override what you need; each may be sync or `async`.

    preprocess(payload, headers) -> predict(payload, headers) -> postprocess(result, headers);
    `explain` takes predict's place for `:explain`. V1 gives the parsed body, V2 and gRPC an
    InferRequest. A hook with a parameter called `context` gets the request's `Context`.
    """

    def __init__(self, name: str = "model", *unused: Any, **also_unused: Any) -> None:
        """Further arguments are those of other SDKs' bases; a server of ours knows better."""
        self.name = name
        self.ready = False
        """True once `load` has returned. Set it to false, and back, to take the model out."""

    def load(self) -> bool:
        """Get ready; called once, before the first request, beside a listener that answers 503."""
        return True

    async def healthy(self) -> bool:
        """Whether the model can be called: what probes are answered by. Override it, sync or
        async, when that is more than `ready`."""
        return self.ready

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """Ask the predictor: what `await super().predict(...)` of a transformer's own `predict`
        means, with the header fields (the request's) that are given. The server does not take it
        for a `predict` of the user's."""
        return await current().predict(payload, headers)


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
