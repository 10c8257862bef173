"""Seldon's SeldonDeployment (`machinelearning.seldon.io/v1`, `v1alpha2`, `v1alpha3`): its fields.

All three versions share one grammar (spec/seldon_tfserving 1). Rules between fields are in
`knative.api.seldon_checks`; names and keys of Seldon's in `knative.api.seldon_words`.
"""

from knative.api import core, pod
from knative.api.problems import Report
from knative.api.resource import Resource
from knative.api.schema import (
    Bool,
    Field,
    Free,
    Int,
    Lazy,
    Listing,
    Obj,
    Str,
    Type,
    ignored,
    refused,
    silent,
)
from knative.api.seldon_words import METHODS, PARAMETER_TYPES, PROTOCOLS, TYPES

_TRANSPORT = "how nodes are called; grpc also makes the Service NAME-grpc for gRPC clients"
_DRAINS = "Knative drains a container before it stops it"

_CONTAINER_PORT = Obj(
    name="SeldonContainerPort",
    fields={
        "name": Field(type=core.TEXT, becomes="`http` names the port that is called"),
        "containerPort": Field(type=Int(minimum=1, maximum=65535), required=True),
        "protocol": Field(type=Str(enum=("TCP",))),
        "hostPort": refused("Knative does not carry hostPort; a Service gets its own URL"),
        "hostIP": refused("Knative does not carry hostIP; a Service gets its own URL"),
    },
)
_CONTAINER = Obj(
    name="SeldonContainer",
    fields={
        **core.CONTAINER.fields,
        "name": Field(
            type=core.NAME,
            required=True,
            becomes="the graph node of that name; another name is a sidecar",
        ),
        "ports": Field(
            type=Listing(of=_CONTAINER_PORT),
            becomes="the one called `http`, or the first, is the serving port (default 9000)",
        ),
        "lifecycle": ignored(_DRAINS),
    },
)

_POD = Obj(
    name="SeldonPodSpec",
    fields={
        **pod.POD_FIELDS,
        "containers": Field(
            type=Listing(of=_CONTAINER, unique="name"),
            becomes="one Service per graph node; others go along as sidecars",
        ),
        "initContainers": Field(
            type=pod.INIT_CONTAINERS,
            becomes="initContainers after ours",
            flag="kubernetes.podspec-init-containers",
        ),
        "terminationGracePeriodSeconds": ignored(f"{_DRAINS}, for as long as a request may take"),
        "restartPolicy": ignored("Knative sets restartPolicy itself (Always)"),
    },
)

_HPA = Obj(
    name="SeldonHpaSpec",
    fields={
        "minReplicas": Field(type=Int(minimum=0), becomes="autoscaling.knative.dev/min-scale"),
        "maxReplicas": Field(type=Int(minimum=1), becomes="autoscaling.knative.dev/max-scale"),
        "metrics": Field(
            type=Listing(of=Free()),
            becomes="cpu or memory utilization: class hpa, metric and target; others warn",
        ),
        "metricsv2": Field(type=Listing(of=Free()), becomes="like metrics"),
    },
)
_KEDA_WHY = "KEDA is not used; Knative scales on requests, to zero and back"
_KEDA = Obj(
    name="SeldonKedaSpec",
    fields={
        "minReplicaCount": Field(type=Int(minimum=0), becomes="autoscaling.knative.dev/min-scale"),
        "maxReplicaCount": Field(type=Int(minimum=1), becomes="autoscaling.knative.dev/max-scale"),
        "triggers": ignored(_KEDA_WHY),
        "pollingInterval": ignored(_KEDA_WHY),
        "cooldownPeriod": ignored(_KEDA_WHY),
        "idleReplicaCount": ignored(_KEDA_WHY),
        "advanced": ignored(_KEDA_WHY),
        "fallback": ignored(_KEDA_WHY),
    },
)

_COMPONENT = Obj(
    name="SeldonPodTemplate",
    fields={
        "metadata": Field(
            type=Obj(
                name="SeldonPodMetadata",
                fields={
                    "name": silent("Services are named after the nodes"),
                    "labels": Field(type=core.TEXT_MAP, becomes="labels of the nodes' pods"),
                    "annotations": Field(type=core.TEXT_MAP, becomes="annotations of the pods"),
                    "creationTimestamp": silent("written by the API server"),
                    "namespace": silent("the deployment's namespace counts"),
                },
            ),
        ),
        "spec": Field(type=_POD, becomes="the pods of the nodes it has containers for"),
        "replicas": Field(
            type=Int(minimum=0), becomes="min-scale and max-scale of the nodes' Services"
        ),
        "hpaSpec": Field(type=_HPA, becomes="autoscaling of the nodes' Services"),
        "kedaSpec": Field(type=_KEDA, becomes="autoscaling of the nodes' Services"),
        "pdbSpec": ignored("Knative keeps capacity itself; write a PodDisruptionBudget if needed"),
    },
)

_PARAMETER = Obj(
    name="SeldonParameter",
    fields={
        "name": Field(type=Str(min_length=1), required=True),
        "value": Field(type=core.TEXT, required=True),
        "type": Field(type=Str(enum=PARAMETER_TYPES)),
    },
)
_ENDPOINT = Obj(
    name="SeldonEndpoint",
    fields={
        "service_host": Field(type=core.TEXT, becomes="host of a node without a container"),
        "service_port": Field(type=Int(minimum=0, maximum=65535), becomes="port"),
        "httpPort": Field(type=Int(minimum=0, maximum=65535), becomes="port"),
        "grpcPort": Field(type=Int(minimum=0, maximum=65535), becomes="port of a GRPC endpoint"),
        "type": Field(
            type=Str(enum=("REST", "GRPC")),
            becomes="GRPC: the node's Service has an h2c port and is called over gRPC",
        ),
    },
)
_LOGGER = Obj(
    name="SeldonLogger",
    fields={
        "url": Field(
            type=core.TEXT,
            becomes="where the router sends the payloads; empty: the namespace's Broker",
        ),
        "mode": Field(type=Str(enum=("", "all", "request", "response"))),
    },
)


def _unit() -> Type:
    return UNIT


UNIT = Obj(
    name="PredictiveUnit",
    fields={
        "name": Field(type=core.NAME, required=True, becomes="node name; part of its Service's"),
        "type": Field(type=Str(enum=TYPES), becomes="what the router calls it for"),
        "implementation": Field(
            type=core.TEXT, becomes="a server of ours, a stock container, or a built-in router"
        ),
        "methods": Field(
            type=Listing(of=Str(enum=METHODS)), becomes="calls beside those of `type`"
        ),
        "endpoint": Field(type=_ENDPOINT),
        "parameters": Field(
            type=Listing(of=_PARAMETER),
            becomes="env PREDICTIVE_UNIT_PARAMETERS, and `--param` of our own server",
        ),
        "modelUri": Field(
            type=Str(),
            becomes="init container `storage_initializer URI /mnt/models` (or a volume)",
        ),
        "serviceAccountName": Field(
            type=core.OBJECT_NAME, becomes="serviceAccountName; its secrets reach the fetcher"
        ),
        "envSecretRefName": Field(
            type=core.OBJECT_NAME, becomes="envFrom of the node's init container"
        ),
        "storageInitializerImage": Field(
            type=Str(min_length=1), becomes="image of the node's init container"
        ),
        "logger": Field(
            type=_LOGGER, becomes="CloudEvents with the node's payloads, sent by the router"
        ),
        "children": Field(type=Listing(of=Lazy(get=_unit)), becomes="children"),
    },
    hints={
        "modelURI": 'unknown field (did you mean "modelUri"?)',
        "storageUri": 'unknown field (did you mean "modelUri"?)',
        "subtype": "a field of the first alpha versions; use implementation",
    },
)

_EXPLAINER = Obj(
    name="SeldonExplainer",
    fields={
        "type": Field(type=core.TEXT, becomes="empty: no explainer; anything else is refused"),
        **{
            name: silent("counts only with a type")
            for name in (
                *("modelUri", "serviceAccountName", "containerSpec", "config", "endpoint"),
                *("envSecretRefName", "storageInitializerImage", "replicas", "initParameters"),
            )
        },
    },
)

_PREDICTOR = Obj(
    name="SeldonPredictor",
    fields={
        "name": Field(type=core.NAME, required=True, becomes="part of the nodes' Service names"),
        "graph": Field(type=UNIT, required=True, becomes="GRAPH_JSON of the router"),
        "componentSpecs": Field(type=Listing(of=_COMPONENT), becomes="the nodes' pods"),
        "replicas": Field(
            type=Int(minimum=0), becomes="min-scale and max-scale where a component says nothing"
        ),
        "annotations": Field(type=core.TEXT_MAP, becomes="annotations of the nodes' pods"),
        "labels": Field(type=core.TEXT_MAP, becomes="labels of the pods; env PREDICTOR_LABELS"),
        "traffic": Field(
            type=Int(minimum=0, maximum=100), becomes="the router's share, or a shadow's"
        ),
        "shadow": Field(type=Bool(), becomes="the router copies requests to it"),
        "svcOrchSpec": Field(
            type=Obj(
                name="SeldonSvcOrchSpec",
                fields={
                    "resources": Field(type=core.RESOURCES, becomes="resources of the router"),
                    "env": Field(type=core.ENV, becomes="env of the router"),
                    "replicas": Field(type=Int(minimum=0), becomes="min-scale of the router"),
                },
            ),
        ),
        "engineResources": ignored("Seldon itself does not read it; use svcOrchSpec.resources"),
        "explainer": Field(type=_EXPLAINER, becomes="nothing; a type is refused"),
        "ssl": refused("TLS inside the cluster is Knative's (system-internal-tls); remove ssl"),
        "progressDeadlineSeconds": Field(
            type=Int(minimum=1), becomes="serving.knative.dev/progress-deadline of the nodes"
        ),
        "componentSpec": refused("a field of the first alpha version; write componentSpecs: [{…}]"),
    },
)
SPEC = Obj(
    name="SeldonDeploymentSpec",
    fields={
        "name": silent("deprecated; metadata.name counts"),
        "predictors": Field(
            type=Listing(of=_PREDICTOR, min_items=1),
            required=True,
            becomes="one router Service for all, one Service per node",
        ),
        "annotations": Field(
            type=core.TEXT_MAP, becomes="seldon.io/… as listed below; others reach the pods"
        ),
        "protocol": Field(
            type=Str(enum=PROTOCOLS), becomes="protocol of the router and of its nodes"
        ),
        "transport": Field(type=Str(enum=("", "rest", "grpc")), becomes=_TRANSPORT),
        "replicas": Field(
            type=Int(minimum=0), becomes="min-scale and max-scale where nothing else is said"
        ),
        "serverType": Field(
            type=Str(enum=("", "rpc", "kafka")),
            becomes="rpc; kafka is refused (an InferenceTrigger calls the router instead)",
        ),
        "oauth_key": ignored("Seldon's old gateway read it; protect the ingress instead"),
        "oauth_secret": ignored("Seldon's old gateway read it; protect the ingress instead"),
    },
)

FIELDS: dict[str, Field] = {
    "spec": Field(type=SPEC, required=True),
    "status": silent("written by a controller"),
}


def check(resource: Resource, report: Report) -> None:
    """Rules between fields; all problems at once."""
    from knative.api import seldon_checks

    seldon_checks.check(resource, report)
