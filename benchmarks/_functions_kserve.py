"""KServe's own server around the same sklearn model; run by the Python of `.venvs/kserve`."""

import sys

import joblib
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Iris(Model):  # type: ignore[misc]
    def __init__(self, file: str) -> None:
        super().__init__("iris")
        self.estimator = joblib.load(file)
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):  # type: ignore[no-untyped-def]
        if isinstance(payload, InferRequest):
            rows = self.estimator.predict(payload.inputs[0].as_numpy())
            output = InferOutput("output-0", list(rows.shape), "INT64")
            output.set_data_from_numpy(rows, binary_data=False)
            return InferResponse(payload.id, "iris", [output])
        return {"predictions": self.estimator.predict(payload["instances"]).tolist()}


if __name__ == "__main__":
    file, port = sys.argv[1:3]
    ModelServer(http_port=int(port), enable_grpc=False, workers=1).start([Iris(file)])
