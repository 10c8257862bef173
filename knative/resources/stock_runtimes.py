"""KServe's own serving runtimes as ServingRuntime specs, for people who want the stock containers.

Images, arguments, ports and formats are KServe's defaults (spec/kserve_sdk 5); readiness probes are
ours, because KServe declares none and a bare TCP probe calls a server ready before its model is.
"""

from typing import Any

JSON = Any
Object = dict[str, JSON]

NAME = "{{.Name}}"
_DIR = "/mnt/models"


def _formats(*formats: tuple[str, str, bool, int]) -> list[Object]:
    return [
        {"name": name, "version": version, "autoSelect": auto, "priority": priority}
        for name, version, auto, priority in formats
    ]


def _runtime(
    formats: list[Object], protocols: list[str], container: Object, metrics_port: int = 8080
) -> Object:
    return {
        "supportedModelFormats": formats,
        "protocolVersions": protocols,
        "annotations": {
            "prometheus.kserve.io/path": "/metrics",
            "prometheus.kserve.io/port": str(metrics_port),
        },
        "containers": [{"name": "kserve-container", **container}],
    }


def _probe(path: str) -> Object:
    return {"httpGet": {"path": path}}


def _python_server(image: str, *args: str) -> Object:
    """One of KServe's own Python servers."""
    return {
        "image": f"kserve/{image}:latest",
        "args": [
            f"--model_name={NAME}",
            f"--model_dir={_DIR}",
            "--http_port=8080",
            *args,
        ],
        "readinessProbe": _probe(f"/v2/models/{NAME}/ready"),
    }


_MLSERVER_ENV = [
    {"name": "MLSERVER_MODEL_IMPLEMENTATION", "value": "{{.Labels.modelClass}}"},
    {"name": "MLSERVER_HTTP_PORT", "value": "8080"},
    {"name": "MLSERVER_GRPC_PORT", "value": "9000"},
    {"name": "MLSERVER_MODEL_NAME", "value": NAME},
    {"name": "MLSERVER_MODEL_URI", "value": _DIR},
]

MODEL_CLASSES = {
    "sklearn": "mlserver_sklearn.SKLearnModel",
    "xgboost": "mlserver_xgboost.XGBoostModel",
    "lightgbm": "mlserver_lightgbm.LightGBMModel",
    "mlflow": "mlserver_mlflow.MLflowRuntime",
}
"""Model format -> value of the label modelClass, which MLServer's template reads."""

GPU_TAGS = frozenset({"kserve-tensorflow-serving", "kserve-torchserve", "kserve-huggingfaceserver"})
"""Runtimes whose image has a `-gpu` variant, used when the container asks for a GPU."""

STOCK_RUNTIMES: dict[str, Object] = {
    "kserve-tensorflow-serving": _runtime(
        _formats(("tensorflow", "1", True, 2), ("tensorflow", "2", True, 2)),
        ["v1", "grpc-v1"],
        {
            "image": "tensorflow/serving:2.6.2",
            "command": ["/usr/bin/tensorflow_model_server"],
            "args": [
                f"--model_name={NAME}",
                "--port=9000",
                "--rest_api_port=8080",
                f"--model_base_path={_DIR}",
                "--rest_api_timeout_in_ms=60000",
            ],
            "securityContext": {"runAsUser": 1000},
            "readinessProbe": _probe(f"/v1/models/{NAME}"),
        },
    ),
    "kserve-torchserve": _runtime(
        _formats(("pytorch", "1", True, 2)),
        ["v1", "v2", "grpc-v2"],
        {
            "image": "pytorch/torchserve-kfs:0.9.0",
            "args": [
                "torchserve",
                "--start",
                f"--model-store={_DIR}/model-store",
                f"--ts-config={_DIR}/config/config.properties",
            ],
            "env": [{"name": "TS_SERVICE_ENVELOPE", "value": "{{.Labels.serviceEnvelope}}"}],
            "securityContext": {"runAsUser": 1000},
            "readinessProbe": _probe(f"/v1/models/{NAME}"),
        },
        metrics_port=8082,
    ),
    "kserve-tritonserver": _runtime(
        _formats(
            ("triton", "2", True, 1),
            ("onnx", "1", True, 1),
            ("tensorrt", "8", True, 1),
            ("tensorflow", "1", True, 1),
            ("tensorflow", "2", True, 1),
            ("pytorch", "1", False, 1),
        ),
        ["v2", "grpc-v2"],
        {
            "image": "nvcr.io/nvidia/tritonserver:23.05-py3",
            "args": [
                "tritonserver",
                f"--model-store={_DIR}",
                "--grpc-port=9000",
                "--http-port=8080",
                "--allow-grpc=true",
                "--allow-http=true",
            ],
            "securityContext": {"runAsUser": 1000},
            "readinessProbe": _probe("/v2/health/ready"),
        },
        metrics_port=8002,
    ),
    "kserve-mlserver": _runtime(
        _formats(
            ("sklearn", "0", True, 2),
            ("sklearn", "1", True, 2),
            ("xgboost", "1", True, 2),
            ("xgboost", "2", True, 2),
            ("lightgbm", "3", True, 2),
            ("lightgbm", "4", True, 2),
            ("mlflow", "1", True, 1),
            ("mlflow", "2", True, 1),
        ),
        ["v2"],
        {
            "image": "docker.io/seldonio/mlserver:1.7.1",
            "env": _MLSERVER_ENV,
            "readinessProbe": _probe(f"/v2/models/{NAME}/ready"),
        },
    ),
    "kserve-sklearnserver": _runtime(
        _formats(("sklearn", "1", True, 1)), ["v1", "v2"], _python_server("sklearnserver")
    ),
    "kserve-xgbserver": _runtime(
        _formats(("xgboost", "1", True, 1), ("xgboost", "2", True, 1)),
        ["v1", "v2"],
        _python_server("xgbserver", "--nthread=1"),
    ),
    "kserve-lgbserver": _runtime(
        _formats(("lightgbm", "3", True, 1), ("lightgbm", "4", True, 1)),
        ["v1", "v2"],
        _python_server("lgbserver", "--nthread=1"),
    ),
    "kserve-predictiveserver": _runtime(
        _formats(
            ("sklearn", "1", False, 3), ("xgboost", "2", False, 3), ("lightgbm", "4", False, 3)
        ),
        ["v1", "v2"],
        _python_server(
            "predictiveserver", "--framework={{.Annotations.modelFormat}}", "--nthread=1"
        ),
    ),
    "kserve-pmmlserver": _runtime(
        _formats(("pmml", "3", True, 1), ("pmml", "4", True, 1)),
        ["v1", "v2"],
        _python_server("pmmlserver"),
    ),
    "kserve-paddleserver": _runtime(
        _formats(("paddle", "2", True, 1)), ["v1", "v2"], _python_server("paddleserver")
    ),
    "kserve-autogluonserver": _runtime(
        _formats(("autogluon", "1", True, 1)), ["v1", "v2"], _python_server("autogluonserver")
    ),
    "kserve-huggingfaceserver": _runtime(
        _formats(("huggingface", "1", True, 1)),
        ["v2", "v1"],
        {
            "image": "kserve/huggingfaceserver:latest",
            "args": [f"--model_name={NAME}"],
            "readinessProbe": _probe(f"/v2/models/{NAME}/ready"),
        },
    ),
    "kserve-vllmserver": _runtime(
        _formats(("vLLM", "1", True, 1)),
        [],
        {
            "image": "vllm/vllm-openai:latest",
            "args": [
                "--port=8080",
                f"--served-model-name={NAME}",
                f"--model={_DIR}",
            ],
            "readinessProbe": _probe("/v1/models"),
        },
    ),
}
"""Name -> ServingRuntime spec."""
