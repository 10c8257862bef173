"""What both sides of the transformer benchmark run: the same two classes, with KServe's base or
without, chosen by where kserve is installed.

`Echo` is the predictor (`Slow` takes 50 ms); `Timed` is the transformer. It stamps the time between
its hooks into the answer, in microseconds: that is the call to the predictor, as user code sees it.
"""

import asyncio
import time

try:
    from kserve import InferResponse, Model
except ImportError:
    from functions import InferResponse, Model


class Echo(Model):  # type: ignore[misc]
    def __init__(self, name):  # type: ignore[no-untyped-def]
        super().__init__(name)
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):  # type: ignore[no-untyped-def]
        if isinstance(payload, dict):
            return {"predictions": payload["instances"]}
        return InferResponse(payload.id, self.name, payload.inputs)


class Slow(Echo):
    async def predict(self, payload, headers=None, response_headers=None):  # type: ignore[no-untyped-def]
        await asyncio.sleep(0.05)
        return await super().predict(payload, headers, response_headers)


class Timed(Model):  # type: ignore[misc]
    def __init__(self, name):  # type: ignore[no-untyped-def]
        super().__init__(name)
        self.ready = True

    async def preprocess(self, payload, headers=None):  # type: ignore[no-untyped-def]
        headers["started"] = time.perf_counter()
        return payload

    async def postprocess(self, result, headers=None, response_headers=None):  # type: ignore[no-untyped-def]
        spent = int((time.perf_counter() - headers["started"]) * 1e6)
        if isinstance(result, dict):
            return {**result, "hop_us": spent}
        result.parameters = {"hop_us": spent}
        return result


class Blocking(Model):  # type: ignore[misc]
    """Sync hooks, as most transformers have them."""

    def __init__(self, name):  # type: ignore[no-untyped-def]
        super().__init__(name)
        self.ready = True

    def preprocess(self, payload, headers=None):  # type: ignore[no-untyped-def]
        return payload

    def postprocess(self, result, headers=None, response_headers=None):  # type: ignore[no-untyped-def]
        return result


class Alone(Timed):
    """The same transformer answering by itself: what the server costs without the hop."""

    async def predict(self, payload, headers=None, response_headers=None):  # type: ignore[no-untyped-def]
        if isinstance(payload, dict):
            return {"predictions": payload["instances"]}
        return InferResponse(payload.id, self.name, payload.inputs)
