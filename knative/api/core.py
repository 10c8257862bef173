"""Kubernetes types that source manifests and Knative Services share, cut to what Knative carries.

Source: Knative's field masks and validation (spec/knative 1.2-1.7). A field that Knative refuses is
here as refused with the reason, so users hear it from us, with a line number, and not from a
cluster.
"""

from knative import keys
from knative.api.schema import (
    Bool,
    Field,
    Free,
    Int,
    IntOrStr,
    Listing,
    Number,
    Obj,
    Quantity,
    Str,
    Table,
    refused,
)

DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_LABEL_WORDS = "lower-case letters, digits and '-', beginning and ending with a letter or digit"
ABSOLUTE_PATH = r"/.*"

TEXT = Str()
NAME = Str(pattern=DNS_LABEL, expect=DNS_LABEL_WORDS, max_length=63)
OBJECT_NAME = Str(
    pattern=rf"{DNS_LABEL}(\.{DNS_LABEL})*",
    expect="lower-case letters, digits, '-' and '.'",
    max_length=253,
)
TEXT_MAP = Table(of=TEXT)
ENV_NAME = Str(pattern=r"[-._a-zA-Z][-._a-zA-Z0-9]*", expect="a variable name")
UID = Int(minimum=0, maximum=2**31 - 1)


def _plain(name: str, /, **types: Str | Int | Number | Bool | Free | Listing | Table | Obj) -> Obj:
    return Obj(name=name, fields={key: Field(type=type_) for key, type_ in types.items()})


# --- environment ----------------------------------------------------------------------------------
KEY_REF = Obj(
    name="KeyRef",
    fields={
        "name": Field(type=OBJECT_NAME, required=True),
        "key": Field(type=TEXT, required=True),
        "optional": Field(type=Bool()),
    },
)
ENV_SOURCE = Obj(
    name="EnvVarSource",
    fields={
        "configMapKeyRef": Field(type=KEY_REF),
        "secretKeyRef": Field(type=KEY_REF),
        "fieldRef": Field(
            type=_plain("FieldRef", apiVersion=TEXT, fieldPath=TEXT), flag=keys.FLAG_FIELD_REF
        ),
        "resourceFieldRef": Field(
            type=_plain("ResourceFieldRef", containerName=TEXT, resource=TEXT, divisor=Free()),
            flag=keys.FLAG_FIELD_REF,
        ),
    },
    one_of=("configMapKeyRef", "secretKeyRef", "fieldRef", "resourceFieldRef"),
)
ENV = Listing(
    of=Obj(
        name="EnvVar",
        fields={
            "name": Field(type=ENV_NAME, required=True),
            "value": Field(type=TEXT),
            "valueFrom": Field(type=ENV_SOURCE),
        },
    )
)
_ENV_REF = Obj(
    name="EnvRef",
    fields={"name": Field(type=OBJECT_NAME, required=True), "optional": Field(type=Bool())},
)
ENV_FROM = Listing(
    of=Obj(
        name="EnvFromSource",
        fields={
            "prefix": Field(type=TEXT),
            "configMapRef": Field(type=_ENV_REF),
            "secretRef": Field(type=_ENV_REF),
        },
        one_of=("configMapRef", "secretRef"),
    )
)

# --- resources ------------------------------------------------------------------------------------
RESOURCES = Obj(
    name="ResourceRequirements",
    fields={
        "limits": Field(type=Table(of=Quantity())),
        "requests": Field(type=Table(of=Quantity())),
        "claims": refused("Knative carries limits and requests only; remove claims"),
    },
)

# --- probes ---------------------------------------------------------------------------------------
_HEADERS = Listing(of=_plain("HttpHeader", name=TEXT, value=TEXT))
PROBE = Obj(
    name="Probe",
    fields={
        "httpGet": Field(
            type=Obj(
                name="HttpGet",
                fields={
                    "path": Field(type=TEXT),
                    "port": Field(type=IntOrStr()),
                    "host": Field(type=TEXT),
                    "scheme": Field(type=Str(enum=("HTTP", "HTTPS"))),
                    "httpHeaders": Field(type=_HEADERS),
                },
            )
        ),
        "tcpSocket": Field(
            type=Obj(
                name="TcpSocket",
                fields={"port": Field(type=IntOrStr()), "host": Field(type=TEXT)},
            )
        ),
        "exec": Field(type=_plain("Exec", command=Listing(of=TEXT))),
        "grpc": Field(type=_plain("Grpc", port=Int(minimum=1, maximum=65535), service=TEXT)),
        "initialDelaySeconds": Field(type=Int(minimum=0)),
        "timeoutSeconds": Field(type=Int(minimum=0)),
        "periodSeconds": Field(type=Int(minimum=0)),
        "successThreshold": Field(type=Int(minimum=0)),
        "failureThreshold": Field(type=Int(minimum=0)),
        "terminationGracePeriodSeconds": refused(
            "Knative does not carry it; the grace period is the service's timeout"
        ),
    },
    one_of=("httpGet", "tcpSocket", "exec", "grpc"),
)

# --- security -------------------------------------------------------------------------------------
SECCOMP = Obj(
    name="SeccompProfile",
    fields={
        "type": Field(type=Str(enum=("RuntimeDefault", "Unconfined", "Localhost")), required=True),
        "localhostProfile": Field(type=TEXT),
    },
)
SECURITY_CONTEXT = Obj(
    name="SecurityContext",
    fields={
        "capabilities": Field(
            type=Obj(
                name="Capabilities",
                fields={
                    "drop": Field(type=Listing(of=TEXT)),
                    "add": Field(type=Listing(of=TEXT), flag=keys.FLAG_ADD_CAPABILITIES),
                },
            )
        ),
        "readOnlyRootFilesystem": Field(type=Bool()),
        "runAsUser": Field(type=UID),
        "runAsGroup": Field(type=UID),
        "runAsNonRoot": Field(type=Bool()),
        "allowPrivilegeEscalation": Field(type=Bool()),
        "seccompProfile": Field(type=SECCOMP),
        "privileged": Field(type=Bool()),
        "seLinuxOptions": refused("Knative does not carry seLinuxOptions on containers"),
        "windowsOptions": refused("Knative does not carry windowsOptions"),
        "procMount": refused("Knative does not carry procMount"),
        "appArmorProfile": refused("Knative does not carry appArmorProfile on containers"),
    },
)
POD_SECURITY_CONTEXT = Obj(
    name="PodSecurityContext",
    fields={
        "runAsUser": Field(type=UID),
        "runAsGroup": Field(type=UID),
        "runAsNonRoot": Field(type=Bool()),
        "supplementalGroups": Field(type=Listing(of=UID)),
        "supplementalGroupsPolicy": Field(type=Str(enum=("Merge", "Strict"))),
        "fsGroup": Field(type=UID),
        "fsGroupChangePolicy": Field(type=Str(enum=("OnRootMismatch", "Always"))),
        "seccompProfile": Field(type=SECCOMP),
        "sysctls": refused("Knative does not carry sysctls"),
        "seLinuxOptions": refused("Knative does not carry seLinuxOptions"),
        "windowsOptions": refused("Knative does not carry windowsOptions"),
        "appArmorProfile": refused("Knative does not carry appArmorProfile"),
    },
)

# --- containers -----------------------------------------------------------------------------------
PORTS = Listing(
    of=Obj(
        name="ContainerPort",
        fields={
            "name": Field(type=Str(enum=("", "http1", "h2c"))),
            "containerPort": Field(type=Int(minimum=0, maximum=65535)),
            "protocol": Field(type=Str(enum=("TCP",))),
            "hostPort": refused("Knative does not carry hostPort; a Service gets its own URL"),
            "hostIP": refused("Knative does not carry hostIP; a Service gets its own URL"),
        },
    )
)
VOLUME_MOUNTS = Listing(
    of=Obj(
        name="VolumeMount",
        fields={
            "name": Field(type=NAME, required=True),
            "mountPath": Field(
                type=Str(pattern=ABSOLUTE_PATH, expect="an absolute path"), required=True
            ),
            "subPath": Field(type=TEXT),
            "readOnly": Field(type=Bool()),
            "mountPropagation": Field(
                type=Str(enum=("None", "HostToContainer")),
                flag=keys.FLAG_MOUNT_PROPAGATION,
            ),
            "subPathExpr": refused("Knative does not carry subPathExpr; write the path in subPath"),
            "recursiveReadOnly": refused("Knative does not carry recursiveReadOnly"),
        },
    ),
    unique="mountPath",
)
_INTERACTIVE = refused("Knative containers have no terminal; remove it")
CONTAINER = Obj(
    name="Container",
    fields={
        "name": Field(type=NAME, becomes="container name (default `kserve-container`)"),
        "image": Field(type=Str(min_length=1), becomes="image"),
        "imagePullPolicy": Field(
            type=Str(enum=("Always", "IfNotPresent", "Never")), becomes="imagePullPolicy"
        ),
        "command": Field(type=Listing(of=TEXT), becomes="command"),
        "args": Field(
            type=Listing(of=TEXT), becomes="args; on a runtime they are appended to its own"
        ),
        "env": Field(type=ENV, becomes="env; the user's variables win over ours"),
        "envFrom": Field(type=ENV_FROM, becomes="envFrom"),
        "workingDir": Field(type=TEXT, becomes="workingDir"),
        "ports": Field(type=PORTS, becomes="the one serving port; name `h2c` for gRPC"),
        "resources": Field(type=RESOURCES, becomes="resources; replaces our defaults per entry"),
        "readinessProbe": Field(type=PROBE, becomes="readinessProbe, run by Knative's queue-proxy"),
        "livenessProbe": Field(type=PROBE, becomes="livenessProbe"),
        "startupProbe": Field(type=PROBE, becomes="startupProbe (slows the cold start down)"),
        "securityContext": Field(
            type=SECURITY_CONTEXT, becomes="securityContext over our hardening"
        ),
        "terminationMessagePath": Field(type=TEXT, becomes="terminationMessagePath"),
        "terminationMessagePolicy": Field(
            type=Str(enum=("File", "FallbackToLogsOnError")), becomes="terminationMessagePolicy"
        ),
        "volumeMounts": Field(type=VOLUME_MOUNTS, becomes="volumeMounts"),
        "lifecycle": refused(
            "Knative sets the lifecycle hooks itself (it drains before it stops a container)"
        ),
        "stdin": _INTERACTIVE,
        "stdinOnce": _INTERACTIVE,
        "tty": _INTERACTIVE,
        "volumeDevices": refused("Knative does not carry raw block devices"),
        "restartPolicy": refused(
            "Knative does not carry native sidecars; use a plain second container"
        ),
        "restartPolicyRules": refused("Knative does not carry restartPolicyRules"),
        "resizePolicy": refused("Knative does not carry resizePolicy"),
    },
    hints={"nodeSelector": "nodeSelector belongs to the component, not to its container"},
)
