"""min-tfs-client's stubs (its own protos, protobuf 3.20) against our gRPC services.

argv: gRPC port.
"""

import sys

import grpc
import numpy as np
from min_tfs_client.tensors import ndarray_to_tensor_proto, tensor_proto_to_ndarray
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

channel = grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}", options=[("grpc.enable_http_proxy", 0)])
prediction = prediction_service_pb2_grpc.PredictionServiceStub(channel)
models = model_service_pb2_grpc.ModelServiceStub(channel)

request = predict_pb2.PredictRequest()
request.model_spec.name = "m"
request.inputs["x"].CopyFrom(ndarray_to_tensor_proto(np.array([1.0, 2.0, 5.0], dtype=np.float32)))
answer = prediction.Predict(request, timeout=20)
assert tensor_proto_to_ndarray(answer.outputs["y"]).tolist() == [3.5, 4.0, 5.5]
assert (
    answer.model_spec.name,
    answer.model_spec.version.value,
    answer.model_spec.signature_name,
) == (
    "m",
    3,
    "serving_default",
)
status = models.GetModelStatus(
    get_model_status_pb2.GetModelStatusRequest(model_spec=request.model_spec), timeout=20
)
assert [(v.version, v.state) for v in status.model_version_status] == [(3, 30)]
metadata = get_model_metadata_pb2.GetModelMetadataRequest(
    model_spec=request.model_spec, metadata_field=["signature_def"]
)
packed = prediction.GetModelMetadata(metadata, timeout=20).metadata["signature_def"]
signatures = get_model_metadata_pb2.SignatureDefMap()
assert packed.Unpack(signatures)
assert "serving_default" in signatures.signature_def

regression = regression_pb2.RegressionRequest()
regression.model_spec.name = "m"
regression.model_spec.signature_name = "regress_x_to_y"
example = regression.input.example_list.examples.add()
example.features.feature["x"].float_list.value.append(80.0)
assert prediction.Regress(regression, timeout=20).result.regressions[0].value == 43.0
classification = classification_pb2.ClassificationRequest()
classification.model_spec.name = "m"
classification.model_spec.signature_name = "classify_x_to_y"
classification.input.CopyFrom(regression.input)
classes = prediction.Classify(classification, timeout=20).result.classifications[0].classes
assert [(c.label, c.score) for c in classes] == [("", 43.0)]


def refused(call, code):
    try:
        call()
    except grpc.RpcError as error:
        found, details = error.code().name, error.details()
    else:
        found, details = "OK", ""
    assert found == code, (found, details)


def changed(**fields):
    other = predict_pb2.PredictRequest()
    other.CopyFrom(request)
    for name, value in fields.items():
        setattr(other.model_spec, name, value)
    return other


refused(lambda: prediction.Predict(changed(name="nope"), timeout=20), "NOT_FOUND")
refused(
    lambda: prediction.Predict(changed(signature_name="nope"), timeout=20), "FAILED_PRECONDITION"
)
other = changed()
other.model_spec.version.value = 9
refused(lambda: prediction.Predict(other, timeout=20), "NOT_FOUND")
other = changed()
other.inputs["z"].CopyFrom(other.inputs["x"])
refused(lambda: prediction.Predict(other, timeout=20), "INVALID_ARGUMENT")
other = changed()
other.output_filter.append("nope")
refused(lambda: prediction.Predict(other, timeout=20), "INVALID_ARGUMENT")
print("ok")
