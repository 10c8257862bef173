"""Every label, annotation and feature-flag name we read or write, one documented constant each.

Nobody spells a key elsewhere. Values that are part of a contract (label values of ours, Knative's
annotation classes) live here too.
"""

# --- ours ---------------------------------------------------------------------------------------
UNIT = "turnout.dev/unit"
"""Label on every compiled Service and its pods: which program runs there.

Values: `functions`, `router-fn`, `events`, or `custom` for a container that is not ours.
"""

GRAPH = "turnout.dev/graph"
"""Label on a router's Service and pods: the graph it runs, e.g. `turnout.dev/graph:
dog-breed-pipeline`."""

SOURCE = "turnout.dev/source"
"""Annotation on every compiled object: the manifest it came from, e.g. `InferenceGraph
default/pets`.

It is also the comment line above the object in printed YAML, so both survive a second compilation.
"""

VISIBILITY = "turnout.dev/visibility"
"""Annotation, read from source manifests: `public` or `cluster-local`, overriding the entry
rule."""

RUNTIME = "turnout.dev/runtime"
"""Annotation, read from source manifests: `functions` or `stock`: who serves a known model
format."""

MODEL_SIZE = "turnout.dev/model-size"
"""Annotation, read from source manifests: size of the artifact as a quantity, e.g. `4Gi`.

Sizes the emptyDir and the progress deadline; unset means small (no size limit, Knative's 600 s).
"""

IMAGE_VOLUME = "turnout.dev/image-volume"
"""Annotation, read from source manifests: `true` mounts an `oci://` model as an image volume."""

STABLE_REVISION = "turnout.dev/stable-revision"
"""Annotation, read from source manifests: the revision that keeps the traffic a canary does not
get."""

COLLOCATE = "turnout.dev/collocate"
"""Annotation, read from source manifests: `true` puts a transformer into the pod of its
predictor."""

GRPC = "turnout.dev/grpc"
"""Annotation, read from source manifests: `true` makes a second Service of a graph's router,
`NAME-grpc`, for clients that use gRPC."""

POD_PORTS = "turnout.dev/pod-ports"
"""Template annotation: ports on which a pod's containers call one another, e.g. `9000,9001`.

Nothing to a cluster, where every pod has a network of its own. The local engine, where all share
one, gives each pod other ports for them.
"""

READ_FROM_SOURCES = frozenset(
    {VISIBILITY, RUNTIME, MODEL_SIZE, IMAGE_VOLUME, STABLE_REVISION, COLLOCATE, GRPC}
)
"""All annotations of ours that source manifests may carry."""

CANARY_PERCENT = "turnout.dev/canary-percent"
"""Annotation on a compiled Service: the share of a canary whose counterpart only the cluster knows.

`turnout apply` turns it into a traffic split with the revision that was ready before.
"""

GRAPH_DIGEST = "turnout.dev/graph-digest"
"""Template annotation: digest of a graph that travels in a ConfigMap, so that a change makes a
revision."""

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY_TURNOUT = "turnout"
"""Label on everything we compile; `turnout apply --prune` and `get` select on it."""

APPLY_SET = "turnout.dev/set"
"""Label `turnout apply` adds: which set of manifests an object belongs to, so prune knows its
own."""

# --- KServe's -----------------------------------------------------------------------------------
INFERENCE_SERVICE = "serving.kserve.io/inferenceservice"
"""Label on every Service and pod of an InferenceService: its name."""

INFERENCE_GRAPH = "serving.kserve.io/inferencegraph"
"""Label on a graph's pods: the graph's name."""

COMPONENT = "component"
"""Label beside INFERENCE_SERVICE: `predictor`, `transformer` or `explainer`."""

KSERVE_STOP = "serving.kserve.io/stop"
"""Annotation `true`: KServe deletes the Service; we leave it out of the output."""

KSERVE_TAG_ROUTING = "serving.kserve.io/enable-tag-routing"
"""Annotation `true`: the latest revision gets the tag `latest` beside a canary."""

KSERVE_DEPLOYMENT_MODE = "serving.kserve.io/deploymentMode"
"""Annotation; `Knative`/`Serverless` is what we do, `Standard`/`RawDeployment` is not."""

KSERVE_STORAGE_SECRET = "serving.kserve.io/storageSecretName"  # noqa: S105 (a key, not a secret)
"""Annotation: the secret with storage configuration instead of `storage-config`."""

KSERVE_STORAGE_READONLY = "storage.kserve.io/readonly"
"""Annotation `false`: the server may write below /mnt/models."""

KSERVE_S3_PREFIX = "serving.kserve.io/s3-"
"""Annotations `serving.kserve.io/s3-endpoint` and friends (spec/kserve_sdk 4.5)."""

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""kubectl's own bookkeeping; copying it to a template makes a new revision for nothing."""

# --- Seldon's -----------------------------------------------------------------------------------
SELDON_DEPLOYMENT = "seldon-deployment-id"
"""Label on every Service and pod of a SeldonDeployment: its name."""

# --- Knative's ----------------------------------------------------------------------------------
KNATIVE_VISIBILITY = "networking.knative.dev/visibility"
CLUSTER_LOCAL = "cluster-local"
"""Label on a Knative Service: reachable inside the cluster only."""

AUTOSCALING = "autoscaling.knative.dev/"
"""Prefix of the annotations below; they belong on the template, not on the Service."""

CLASS = "autoscaling.knative.dev/class"
CLASS_KPA = "kpa.autoscaling.knative.dev"
CLASS_HPA = "hpa.autoscaling.knative.dev"
METRIC = "autoscaling.knative.dev/metric"
TARGET = "autoscaling.knative.dev/target"
TARGET_UTILIZATION = "autoscaling.knative.dev/target-utilization-percentage"
MIN_SCALE = "autoscaling.knative.dev/min-scale"
MAX_SCALE = "autoscaling.knative.dev/max-scale"
INITIAL_SCALE = "autoscaling.knative.dev/initial-scale"
RETENTION = "autoscaling.knative.dev/scale-to-zero-pod-retention-period"

PROGRESS_DEADLINE = "serving.knative.dev/progress-deadline"
"""Template annotation: how long a revision may take to its first ready pod; default 600s."""

ROLLOUT_DURATION = "serving.knative.dev/rollout-duration"
"""Service annotation: spread a rollout over this time."""

# --- Knative feature flags (ConfigMap config-features in knative-serving) -------------------------
FLAG_INIT_CONTAINERS = "kubernetes.podspec-init-containers"
FLAG_EMPTY_DIR = "kubernetes.podspec-volumes-emptydir"
FLAG_PVC = "kubernetes.podspec-persistent-volume-claim"
FLAG_PVC_WRITE = "kubernetes.podspec-persistent-volume-write"
FLAG_IMAGE_VOLUME = "kubernetes.podspec-volumes-image"
FLAG_HOST_PATH = "kubernetes.podspec-volumes-hostpath"
FLAG_CSI = "kubernetes.podspec-volumes-csi"
FLAG_EPHEMERAL = "kubernetes.podspec-volumes-ephemeral"
FLAG_MOUNT_PROPAGATION = "kubernetes.podspec-volumes-mount-propagation"
FLAG_MULTI_CONTAINER = "multi-container"
FLAG_MULTI_CONTAINER_PROBING = "multi-container-probing"
FLAG_SECURITY_CONTEXT = "kubernetes.podspec-securitycontext"
FLAG_ADD_CAPABILITIES = "kubernetes.containerspec-addcapabilities"
FLAG_AFFINITY = "kubernetes.podspec-affinity"
FLAG_NODE_SELECTOR = "kubernetes.podspec-nodeselector"
FLAG_TOLERATIONS = "kubernetes.podspec-tolerations"
FLAG_TOPOLOGY_SPREAD = "kubernetes.podspec-topologyspreadconstraints"
FLAG_RUNTIME_CLASS = "kubernetes.podspec-runtimeclassname"
FLAG_PRIORITY_CLASS = "kubernetes.podspec-priorityclassname"
FLAG_SCHEDULER = "kubernetes.podspec-schedulername"
FLAG_HOST_ALIASES = "kubernetes.podspec-hostaliases"
FLAG_DNS_POLICY = "kubernetes.podspec-dnspolicy"
FLAG_DNS_CONFIG = "kubernetes.podspec-dnsconfig"
FLAG_SHARE_PROCESS_NAMESPACE = "kubernetes.podspec-shareprocessnamespace"
FLAG_HOST_IPC = "kubernetes.podspec-hostipc"
FLAG_HOST_PID = "kubernetes.podspec-hostpid"
FLAG_HOST_NETWORK = "kubernetes.podspec-hostnetwork"
FLAG_FIELD_REF = "kubernetes.podspec-fieldref"

DEFAULT_ENABLED_FLAGS = frozenset({FLAG_EMPTY_DIR, FLAG_MULTI_CONTAINER})
"""Flags a stock Knative has on; all others are off unless an administrator enabled them."""
