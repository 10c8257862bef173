"""KServe's InferenceService (`serving.kserve.io/v1beta1`): its fields and the checks between them.

Source: spec/kserve_sdk sections 5 and 6. Field tables here are the single source of docs/fields.md.
"""

from knative.api import core, pod
from knative.api.formats import FRAMEWORKS, PROTOCOLS
from knative.api.problems import Path, Report
from knative.api.resource import Resource
from knative.api.schema import Field, Int, Listing, Obj, Str, Table, ignored, refused, silent

_STANDARD_ONLY = (
    "KServe knows it in its Standard (Deployment) mode only; Knative has no place for it"
)

STORAGE_URI = Str(min_length=1)

STORAGE = Obj(
    name="StorageSpec",
    fields={
        "key": Field(
            type=core.TEXT, becomes="entry of the storage secret, given to the init container"
        ),
        "path": Field(type=core.TEXT, becomes="path inside the bucket"),
        "schemaPath": ignored("only KServe's multi-model puller reads it"),
        "parameters": Field(
            type=Table(of=core.TEXT),
            becomes="env STORAGE_OVERRIDE_CONFIG of the init container (type, bucket, …)",
        ),
        "storageUri": Field(type=STORAGE_URI, becomes="source of the init container"),
    },
)

STORAGE_URIS = Listing(
    of=Obj(
        name="StorageUri",
        fields={
            "uri": Field(type=STORAGE_URI, required=True, becomes="source"),
            "mountPath": Field(
                type=Str(pattern=core.ABSOLUTE_PATH, expect="an absolute path"),
                becomes="destination below one shared volume (default /mnt/models)",
            ),
        },
    ),
    unique="mountPath",
)

_CONTAINER_FIELDS = dict(core.CONTAINER.fields)

_MODEL_COMMON: dict[str, Field] = {
    "storageUri": Field(
        type=STORAGE_URI,
        becomes="init container `storage_initializer URI /mnt/models` (or a volume)",
    ),
    "storage": Field(
        type=STORAGE, becomes="storageUri plus STORAGE_CONFIG from the storage secret"
    ),
    "runtimeVersion": Field(type=core.TEXT, becomes="tag of the runtime's image"),
    "protocolVersion": Field(
        type=Str(enum=PROTOCOLS), becomes="`--protocol`; grpc-v2 makes the port h2c"
    ),
    **_CONTAINER_FIELDS,
}

MODEL = Obj(
    name="Model",
    fields={
        "modelFormat": Field(
            type=Obj(
                name="ModelFormat",
                fields={
                    "name": Field(
                        type=Str(min_length=1),
                        required=True,
                        becomes="`--runtime` or a stock runtime",
                    ),
                    "version": Field(type=core.TEXT, becomes="choice among ServingRuntimes"),
                },
            ),
            required=True,
        ),
        "runtime": Field(
            type=core.OBJECT_NAME,
            becomes="a ServingRuntime of the input, or a stock runtime of KServe (kserve-…)",
        ),
        **_MODEL_COMMON,
    },
)

OLD_FRAMEWORK = Obj(
    name="Framework",
    fields=_MODEL_COMMON,
    hints={"modelUri": 'unknown field (did you mean "storageUri"?)'},
)
"""The form before `model:`, e.g. `predictor.sklearn.storageUri`."""

_LOGGER = Obj(
    name="Logger",
    fields={
        "url": Field(type=core.TEXT, becomes="env FUNCTIONS_LOGGER_URL"),
        "mode": Field(type=Str(enum=("all", "request", "response"))),
        "metadataHeaders": Field(type=Listing(of=core.TEXT)),
        "metadataAnnotations": Field(type=Listing(of=core.TEXT)),
        "storage": refused(
            "only KServe's agent stores payloads; send them to a Broker with logger.url"
        ),
    },
)
_BATCHER = Obj(
    name="Batcher",
    fields={
        "maxBatchSize": Field(type=Int(minimum=1)),
        "maxLatency": Field(type=Int(minimum=0)),
        "timeout": Field(type=Int(minimum=0)),
    },
)

_COMPONENT: dict[str, Field] = {
    "name": Field(type=core.NAME, becomes="part of the name of a predictor behind a transformer"),
    "minReplicas": Field(
        type=Int(minimum=0), becomes="autoscaling.knative.dev/min-scale (default 0, KServe: 1)"
    ),
    "maxReplicas": Field(
        type=Int(minimum=0), becomes="autoscaling.knative.dev/max-scale (0: no limit)"
    ),
    "scaleTarget": Field(type=Int(minimum=1), becomes="autoscaling.knative.dev/target"),
    "scaleMetric": Field(
        type=Str(enum=("concurrency", "rps", "cpu", "memory")),
        becomes="autoscaling.knative.dev/metric; cpu and memory also set class hpa",
    ),
    "scaleMetricType": ignored(_STANDARD_ONLY),
    "autoScaling": refused(f"{_STANDARD_ONLY}; use scaleMetric and scaleTarget"),
    "containerConcurrency": Field(
        type=Int(minimum=0, maximum=1000), becomes="containerConcurrency (default 0: no limit)"
    ),
    "timeout": Field(
        type=Int(minimum=1), becomes="timeoutSeconds and responseStartTimeoutSeconds together"
    ),
    "canaryTrafficPercent": Field(
        type=Int(minimum=0, maximum=100),
        becomes="traffic: latest revision N %, the revision before it the rest, tag `prev`",
    ),
    "canary": refused(_STANDARD_ONLY),
    "deploymentStrategy": refused(f"{_STANDARD_ONLY}; Knative replaces pods revision by revision"),
    "logger": Field(
        type=_LOGGER, becomes="FUNCTIONS_LOGGER_* of our own server; refused on other containers"
    ),
    "batcher": Field(
        type=_BATCHER,
        becomes="FUNCTIONS_MAX_BATCH_* of our own server; refused on other containers",
    ),
    "labels": Field(type=core.TEXT_MAP, becomes="labels of the revision template"),
    "annotations": Field(type=core.TEXT_MAP, becomes="annotations of the revision template"),
    "storageUris": Field(type=STORAGE_URIS, becomes="one init container with all pairs"),
    "minReadySeconds": ignored(_STANDARD_ONLY),
    "workerSpec": refused("models over several nodes need a Ray cluster; Knative runs single pods"),
    "containers": Field(
        type=pod.CONTAINERS, becomes="the serving container (`kserve-container`) and its sidecars"
    ),
    "initContainers": Field(
        type=pod.INIT_CONTAINERS,
        becomes="initContainers after ours",
        flag="kubernetes.podspec-init-containers",
    ),
    **pod.POD_FIELDS,
}

_ONE_MODEL = "a component serves one model; give exactly one of model, containers"

PREDICTOR = Obj(
    name="Predictor",
    fields={
        "model": Field(type=MODEL, becomes="a model server container"),
        **{
            name: Field(type=OLD_FRAMEWORK, becomes=f"like model.modelFormat.name: {format_}")
            for name, format_ in FRAMEWORKS.items()
        },
        **_COMPONENT,
    },
    hints={
        "custom": "an old form; write containers: [{…}]",
        "modelFormat": "modelFormat belongs under model",
        "storageUri": "storageUri belongs under model",
    },
)

TRANSFORMER = Obj(
    name="Transformer",
    fields={
        **_COMPONENT,
        "containers": Field(
            type=pod.CONTAINERS,
            becomes="its own Service, NAME; the predictor becomes NAME-predictor",
        ),
    },
    hints={"custom": "an old form; write containers: [{…}]"},
)

EXPLAINER = Obj(
    name="Explainer",
    fields={
        **_COMPONENT,
        "alibi": refused(
            "Alibi explainers are gone from KServe; give the explainer as a container"
        ),
        "aix": refused("AIX explainers are gone from KServe; give the explainer as a container"),
        "art": refused(
            "the ART explainer is KServe's own image; give it as a container with its arguments"
        ),
    },
)

SPEC = Obj(
    name="InferenceServiceSpec",
    fields={
        "predictor": Field(
            type=PREDICTOR, required=True, becomes="Service NAME (or NAME-predictor)"
        ),
        "transformer": Field(type=TRANSFORMER, becomes="Service NAME in front of NAME-predictor"),
        "explainer": Field(type=EXPLAINER, becomes="Service NAME-explainer"),
    },
    hints={
        "default": "the v1alpha2 form; move its predictor up: spec.predictor",
        "canary": "the v1alpha2 form; use predictor.canaryTrafficPercent",
    },
)

FIELDS: dict[str, Field] = {
    "spec": Field(type=SPEC, required=True),
    "status": silent("written by a controller"),
}


def check(resource: Resource, report: Report) -> None:
    """Rules between fields. Runs after the field tables found nothing wrong."""
    spec = resource.spec
    _check_predictor(spec["predictor"], report)
    for component in ("transformer", "explainer"):
        if spec.get(component) is not None:
            path: Path = ("spec", component)
            if not spec[component].get("containers"):
                report.error(path, f"a {component} needs containers: with its one container")
    for component in ("predictor", "transformer", "explainer"):
        if spec.get(component) is not None:
            _check_scaling(spec[component], ("spec", component), report)


def _check_predictor(predictor: dict[str, object], report: Report) -> None:
    path: Path = ("spec", "predictor")
    servers = [key for key in ("model", *FRAMEWORKS) if predictor.get(key) is not None]
    if len(servers) > 1:
        report.error(path, f"{_ONE_MODEL}; {' and '.join(servers)} are given")
    elif not servers and not predictor.get("containers"):
        report.error(path, f"{_ONE_MODEL}; none is given")
    for key in servers:
        model = predictor[key]
        if isinstance(model, dict) and model.get("storageUri") and model.get("storage"):
            report.error((*path, key), "storageUri and storage say the same thing; keep one")
        if isinstance(model, dict) and model.get("storageUri") and predictor.get("storageUris"):
            report.error(
                (*path, key, "storageUri"), "storageUri and storageUris exclude each other"
            )


def _check_scaling(component: dict[str, object], path: Path, report: Report) -> None:
    low, high = component.get("minReplicas"), component.get("maxReplicas")
    if isinstance(low, int) and isinstance(high, int) and high and low > high:
        report.error((*path, "minReplicas"), f"minReplicas {low} is above maxReplicas {high}")
    if component.get("scaleMetric") in ("cpu", "memory"):
        if not low:
            report.error(
                (*path, "scaleMetric"),
                f"scaling on {component['scaleMetric']} needs Knative's hpa class, which cannot"
                " scale to zero: set minReplicas to 1 or more, or scale on concurrency or rps",
            )
        annotations = component.get("annotations")
        given = (
            annotations.get("autoscaling.knative.dev/class", "")
            if isinstance(annotations, dict)
            else ""
        )
        if given.startswith("kpa"):
            report.error((*path, "scaleMetric"), "class kpa scales on concurrency or rps only")
