"""Pod-level fields and volumes, cut to what Knative carries and with the feature flag each one
needs.

Source: spec/knative 1.2 (flags), 1.3 (masks), 1.5 (volumes).
"""

from knative import keys
from knative.api.core import (
    CONTAINER,
    NAME,
    OBJECT_NAME,
    POD_SECURITY_CONTEXT,
    TEXT,
    TEXT_MAP,
)
from knative.api.schema import Bool, Field, Free, Int, Listing, Obj, Quantity, Str, Table, refused

_MODE = Int(minimum=0, maximum=0o777)
_ITEMS = Listing(
    of=Obj(
        name="KeyToPath",
        fields={
            "key": Field(type=TEXT, required=True),
            "path": Field(type=TEXT, required=True),
            "mode": Field(type=_MODE),
        },
    )
)
_SECRET = Obj(
    name="SecretVolume",
    fields={
        "secretName": Field(type=OBJECT_NAME, required=True),
        "items": Field(type=_ITEMS),
        "defaultMode": Field(type=_MODE),
        "optional": Field(type=Bool()),
    },
    hints={"name": 'unknown field (a secret volume says "secretName")'},
)
_CONFIG_MAP = Obj(
    name="ConfigMapVolume",
    fields={
        "name": Field(type=OBJECT_NAME, required=True),
        "items": Field(type=_ITEMS),
        "defaultMode": Field(type=_MODE),
        "optional": Field(type=Bool()),
    },
)
_PROJECTED = Obj(
    name="ProjectedVolume",
    fields={
        "sources": Field(
            type=Listing(
                of=Obj(
                    name="ProjectedSource",
                    fields={
                        "secret": Field(type=Free()),
                        "configMap": Field(type=Free()),
                        "serviceAccountToken": Field(type=Free()),
                        "downwardAPI": Field(type=Free()),
                        "clusterTrustBundle": refused("Knative does not carry clusterTrustBundle"),
                        "podCertificate": refused("Knative does not carry podCertificate"),
                    },
                )
            )
        ),
        "defaultMode": Field(type=_MODE),
    },
)
_NO_SOURCE = (
    "Knative carries secret, configMap, projected, emptyDir, persistentVolumeClaim, image, csi, \
hostPath and ephemeral volumes only"
)
_OTHER_SOURCES = (
    *(
        "nfs",
        "iscsi",
        "cephfs",
        "rbd",
        "downwardAPI",
        "gcePersistentDisk",
        "azureFile",
        "azureDisk",
    ),
    *("awsElasticBlockStore", "glusterfs", "fc", "gitRepo", "cinder", "flexVolume"),
)
_SOURCES: dict[str, Field] = {
    "secret": Field(type=_SECRET),
    "configMap": Field(type=_CONFIG_MAP),
    "projected": Field(type=_PROJECTED),
    "emptyDir": Field(
        type=Obj(
            name="EmptyDir",
            fields={
                "medium": Field(type=Str(enum=("", "Memory"))),
                "sizeLimit": Field(type=Quantity()),
            },
        ),
    ),
    "persistentVolumeClaim": Field(
        type=Obj(
            name="PersistentVolumeClaim",
            fields={
                "claimName": Field(type=OBJECT_NAME, required=True),
                "readOnly": Field(type=Bool()),
            },
        ),
        flag=keys.FLAG_PVC,
    ),
    "image": Field(
        type=Obj(
            name="ImageVolume",
            fields={
                "reference": Field(type=TEXT, required=True),
                "pullPolicy": Field(type=Str(enum=("Always", "IfNotPresent", "Never"))),
            },
        ),
        flag=keys.FLAG_IMAGE_VOLUME,
    ),
    "hostPath": Field(type=Free(), flag=keys.FLAG_HOST_PATH),
    "csi": Field(type=Free(), flag=keys.FLAG_CSI),
    "ephemeral": Field(type=Free(), flag=keys.FLAG_EPHEMERAL),
    **{source: refused(_NO_SOURCE) for source in _OTHER_SOURCES},
}
VOLUME = Obj(
    name="Volume",
    fields={"name": Field(type=NAME, required=True), **_SOURCES},
    one_of=tuple(name for name, known in _SOURCES.items() if not known.why),
)
VOLUMES = Listing(of=VOLUME, unique="name")

TOLERATION = Obj(
    name="Toleration",
    fields={
        "key": Field(type=TEXT),
        "operator": Field(type=Str(enum=("Exists", "Equal", "Lt", "Gt"))),
        "value": Field(type=TEXT),
        "effect": Field(type=Str(enum=("NoSchedule", "PreferNoSchedule", "NoExecute"))),
        "tolerationSeconds": Field(type=Int()),
    },
)
AFFINITY = Obj(
    name="Affinity",
    fields={
        "nodeAffinity": Field(type=Table(of=Free())),
        "podAffinity": Field(type=Table(of=Free())),
        "podAntiAffinity": Field(type=Table(of=Free())),
    },
)
LOCAL_REFS = Listing(
    of=Obj(name="LocalRef", fields={"name": Field(type=OBJECT_NAME, required=True)})
)

NODE_NAME = refused(
    "Knative chooses the node itself and refuses nodeName; use nodeSelector or affinity instead"
)
PLACEMENT: dict[str, Field] = {
    "nodeSelector": Field(type=TEXT_MAP, becomes="nodeSelector", flag=keys.FLAG_NODE_SELECTOR),
    "tolerations": Field(
        type=Listing(of=TOLERATION), becomes="tolerations", flag=keys.FLAG_TOLERATIONS
    ),
    "affinity": Field(type=AFFINITY, becomes="affinity", flag=keys.FLAG_AFFINITY),
    "nodeName": NODE_NAME,
}
"""Where pods run; shared by InferenceService components, InferenceGraph and Knative templates."""

POD_FIELDS: dict[str, Field] = {
    "serviceAccountName": Field(type=OBJECT_NAME, becomes="serviceAccountName"),
    "imagePullSecrets": Field(type=LOCAL_REFS, becomes="imagePullSecrets"),
    "volumes": Field(type=VOLUMES, becomes="volumes"),
    "enableServiceLinks": Field(type=Bool(), becomes="enableServiceLinks"),
    "automountServiceAccountToken": Field(
        type=Bool(), becomes="automountServiceAccountToken (Knative carries only false)"
    ),
    **PLACEMENT,
    "securityContext": Field(
        type=POD_SECURITY_CONTEXT, becomes="pod securityContext", flag=keys.FLAG_SECURITY_CONTEXT
    ),
    "topologySpreadConstraints": Field(
        type=Listing(of=Table(of=Free())),
        becomes="topologySpreadConstraints",
        flag=keys.FLAG_TOPOLOGY_SPREAD,
    ),
    "runtimeClassName": Field(
        type=OBJECT_NAME, becomes="runtimeClassName", flag=keys.FLAG_RUNTIME_CLASS
    ),
    "priorityClassName": Field(
        type=OBJECT_NAME, becomes="priorityClassName", flag=keys.FLAG_PRIORITY_CLASS
    ),
    "schedulerName": Field(type=TEXT, becomes="schedulerName", flag=keys.FLAG_SCHEDULER),
    "hostAliases": Field(
        type=Listing(of=Table(of=Free())), becomes="hostAliases", flag=keys.FLAG_HOST_ALIASES
    ),
    "dnsPolicy": Field(
        type=Str(enum=("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")),
        becomes="dnsPolicy",
        flag=keys.FLAG_DNS_POLICY,
    ),
    "dnsConfig": Field(type=Table(of=Free()), becomes="dnsConfig", flag=keys.FLAG_DNS_CONFIG),
    "shareProcessNamespace": Field(
        type=Bool(), becomes="shareProcessNamespace", flag=keys.FLAG_SHARE_PROCESS_NAMESPACE
    ),
    "hostIPC": Field(type=Bool(), becomes="hostIPC", flag=keys.FLAG_HOST_IPC),
    "hostPID": Field(type=Bool(), becomes="hostPID", flag=keys.FLAG_HOST_PID),
    "hostNetwork": Field(type=Bool(), becomes="hostNetwork", flag=keys.FLAG_HOST_NETWORK),
    "restartPolicy": refused("Knative sets restartPolicy itself (Always); remove it"),
    "terminationGracePeriodSeconds": refused(
        "Knative sets it to the service's timeout; use `timeout` (timeoutSeconds) instead"
    ),
    "activeDeadlineSeconds": refused(
        "a Service runs until it is scaled down; Knative refuses a deadline"
    ),
    "hostname": refused("Knative names pods itself"),
    "subdomain": refused("Knative names pods itself"),
    "setHostnameAsFQDN": refused("Knative names pods itself"),
    "priority": refused("Knative carries priorityClassName (behind a flag), not priority"),
    "readinessGates": refused("Knative decides readiness by the container's readinessProbe"),
    "serviceAccount": refused("an old name; write serviceAccountName"),
    "preemptionPolicy": refused("Knative does not carry preemptionPolicy"),
    "overhead": refused("Knative does not carry overhead"),
    "os": refused("Knative does not carry os"),
    "hostUsers": refused("Knative does not carry hostUsers"),
    "schedulingGates": refused("Knative does not carry schedulingGates"),
    "resourceClaims": refused("Knative does not carry resourceClaims"),
    "resources": refused("pod-level resources are not carried; set them on the container"),
    "ephemeralContainers": refused(
        "ephemeral containers are added by kubectl debug, not by a manifest"
    ),
}
"""Pod fields other than containers, in Knative's revision template and KServe's components."""

CONTAINERS = Listing(of=CONTAINER, unique="name")
INIT_CONTAINERS = Listing(of=CONTAINER, unique="name")
