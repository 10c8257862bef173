"""KServe's ServingRuntime and ClusterServingRuntime: a container template for some model formats.

They make no object of their own; InferenceServices of the same input use them (spec/kserve_sdk 5).
"""

from typing import Any

from knative.api import core, pod
from knative.api.formats import PROTOCOLS
from knative.api.problems import Report
from knative.api.resource import Resource
from knative.api.schema import Bool, Field, Int, Listing, Obj, Str, ignored, refused, silent

_MESH = "only ModelMesh reads it; here every model has its own pods"

SPEC = Obj(
    name="ServingRuntimeSpec",
    fields={
        "supportedModelFormats": Field(
            type=Listing(
                of=Obj(
                    name="SupportedModelFormat",
                    fields={
                        "name": Field(type=Str(min_length=1), required=True, becomes="choice"),
                        "version": Field(type=core.TEXT, becomes="choice"),
                        "autoSelect": Field(type=Bool(), becomes="choice without being named"),
                        "priority": Field(type=Int(minimum=1), becomes="choice, higher first"),
                    },
                )
            ),
            required=True,
        ),
        "protocolVersions": Field(type=Listing(of=Str(enum=PROTOCOLS)), becomes="choice"),
        "disabled": Field(type=Bool(), becomes="never chosen when true"),
        "containers": Field(
            type=Listing(of=core.CONTAINER, unique="name", min_items=1),
            required=True,
            becomes="the serving container (`kserve-container`) and its sidecars",
        ),
        "volumes": Field(type=pod.VOLUMES, becomes="volumes"),
        "labels": Field(type=core.TEXT_MAP, becomes="labels of the revision template"),
        "annotations": Field(type=core.TEXT_MAP, becomes="annotations of the revision template"),
        "imagePullSecrets": pod.POD_FIELDS["imagePullSecrets"],
        "serviceAccountName": pod.POD_FIELDS["serviceAccountName"],
        **pod.PLACEMENT,
        "hostIPC": pod.POD_FIELDS["hostIPC"],
        "multiModel": Field(type=Bool(), becomes="never chosen when true (ModelMesh)"),
        "storageHelper": ignored(_MESH),
        "builtInAdapter": ignored(_MESH),
        "grpcEndpoint": ignored(_MESH),
        "grpcDataEndpoint": ignored(_MESH),
        "httpDataEndpoint": ignored(_MESH),
        "replicas": ignored(_MESH),
        "nodeSelectorTerms": ignored(_MESH),
        "workerSpec": refused(
            "models over several nodes need a Ray cluster; Knative runs single pods"
        ),
    },
)

FIELDS: dict[str, Field] = {
    "spec": Field(type=SPEC, required=True),
    "status": silent("written by a controller"),
}


def check(resource: Resource, report: Report) -> None:
    """The serving container must be recognisable."""
    containers = resource.spec["containers"]
    if len(containers) > 1 and not any(c.get("name") == "kserve-container" for c in containers):
        report.error(
            ("spec", "containers"), "of several containers one must be called kserve-container"
        )


def make(resource: Resource, context: Any) -> list[dict[str, Any]]:
    """Nothing by itself."""
    return []
