"""min-tfs-client's stubs (its own protos, protobuf 3.20) against our gRPC services.

argv: gRPC port; `graph` if a router is in between.
"""

import sys

import grpc
import numpy as np
from min_tfs_client.tensors import ndarray_to_tensor_proto, tensor_proto_to_ndarray
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

GRAPH = sys.argv[2:] == ["graph"]
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


multi = inference_pb2.MultiInferenceRequest(input=regression.input)
for kind, signature in (("regress", "regress_x_to_y"), ("classify", "classify_x_to_y")):
    task = multi.tasks.add(method_name=f"tensorflow/serving/{kind}")
    task.model_spec.name, task.model_spec.signature_name = "m", signature
results = prediction.MultiInference(multi, timeout=20).results
assert results[0].regression_result.regressions[0].value == 43.0
assert results[1].classification_result.classifications[0].classes[0].score == 43.0
assert [r.model_spec.signature_name for r in results] == ["regress_x_to_y", "classify_x_to_y"]


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
other = changed()
other.output_filter.extend(["y", "y"])
refused(lambda: prediction.Predict(other, timeout=20), "INVALID_ARGUMENT")
if not GRAPH:  # which needs no name
    refused(lambda: prediction.Predict(changed(name=""), timeout=20), "INVALID_ARGUMENT")
refused(lambda: prediction.Predict(changed(version_label="nope"), timeout=20), "INVALID_ARGUMENT")
other = changed()
other.inputs["x"].CopyFrom(ndarray_to_tensor_proto(np.array([1.0])))  # float64
refused(lambda: prediction.Predict(other, timeout=20), "INVALID_ARGUMENT")
other = changed()
other.inputs["x"].tensor_shape.dim[0].size = 7
other.inputs["x"].tensor_content = b"123"
refused(lambda: prediction.Predict(other, timeout=20), "INVALID_ARGUMENT")
multi.tasks[1].model_spec.signature_name = "regress_x_to_y"
refused(lambda: prediction.MultiInference(multi, timeout=20), "INVALID_ARGUMENT")
multi.tasks[1].method_name = "tensorflow/serving/predict"
refused(lambda: prediction.MultiInference(multi, timeout=20), "UNIMPLEMENTED")
multi.tasks[1].model_spec.name = "nope"
refused(lambda: prediction.MultiInference(multi, timeout=20), "UNIMPLEMENTED")
del multi.tasks[:]
refused(lambda: prediction.MultiInference(multi, timeout=20), "INVALID_ARGUMENT")
nobody = get_model_status_pb2.GetModelStatusRequest()
nobody.model_spec.name = "nope"
refused(lambda: models.GetModelStatus(nobody, timeout=20), "NOT_FOUND")
empty = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=request.model_spec)
refused(lambda: prediction.GetModelMetadata(empty, timeout=20), "INVALID_ARGUMENT")


def reload(versions, labels, name="m"):
    asked = model_management_pb2.ReloadConfigRequest()
    config = asked.config.model_config_list.config.add(name=name, base_path="/models/m")
    config.model_platform = "tensorflow"
    config.model_version_policy.specific.versions.extend(versions)
    for label, version in labels.items():
        config.version_labels[label] = version
    return models.HandleReloadConfigRequest(asked, timeout=60)


def available():
    asked = get_model_status_pb2.GetModelStatusRequest(model_spec=request.model_spec)
    found = models.GetModelStatus(asked, timeout=20).model_version_status
    return [v.version for v in found if v.state == 30]


if GRAPH:
    refused(lambda: reload([2, 3], {}), "UNIMPLEMENTED")
    print("ok")
    sys.exit()
# a label must not point to what is not there yet, and then nothing of the configuration counts
refused(lambda: reload([2, 3], {"canary": 2}), "FAILED_PRECONDITION")
refused(lambda: reload([2], {}, name="other"), "FAILED_PRECONDITION")
assert available() == [3]
reload([2, 3], {})
assert available() == [3, 2]
reload([2, 3], {"stable": 2, "canary": 3})
for label, version, value in (("stable", 2, 2.5), ("canary", 3, 3.5)):
    answer = prediction.Predict(changed(version_label=label), timeout=20)
    assert answer.model_spec.version.value == version
    assert tensor_proto_to_ndarray(answer.outputs["y"])[0] == value
reload([3], {})
assert available() == [3]
print("ok")
