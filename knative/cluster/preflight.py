"""Is this cluster fit for these manifests? Each miss is one line with its remedy.

Every check is one small function from (Api, Needs) to findings. What we may not look at (RBAC) is
said
and not counted as a miss.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from knative import features, keys
from knative.api import scaling
from knative.cluster.client import Api
from knative.cluster.errors import ClusterError, Forbidden, NotFound

JSON = Any
Object = dict[str, JSON]

SERVING = "knative-serving"
EVENTING = "knative-eventing"
MIN_SERVING = (1, 13)
"""Oldest Knative Serving whose behaviour the compiled manifests rely on."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. `good` is None for "could not look" and for remarks."""

    good: bool | None
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a set of compiled objects asks of a cluster."""

    objects: Sequence[Object] = ()
    flags: Mapping[str, str] = field(default_factory=dict)

    @property
    def services(self) -> list[Object]:
        """The Knative Services among them."""
        return [o for o in self.objects if o["kind"] == "Service"]

    @property
    def namespaces(self) -> list[str]:
        """All namespaces, sorted."""
        return sorted({o["metadata"]["namespace"] for o in self.objects})


def run(api: Api, needs: Needs) -> list[Check]:
    """All checks. Without Knative Serving only that is reported."""
    found = list(_serving(api))
    if any(check.good is False for check in found):
        return found
    for check in CHECKS:
        try:
            found += check(api, needs)
        except Forbidden as error:
            what = str(error).splitlines()[0]
            found.append(Check(None, f"could not look: {what}"))
    return found


def _serving(api: Api) -> Iterator[Check]:
    version = api.request("GET", "version")[1]
    yield Check(True, f"Kubernetes {version.get('gitVersion', '?')} at {api.name}")
    try:
        api.request("GET", "apis/serving.knative.dev/v1")
    except NotFound:
        yield Check(
            False,
            "Knative Serving is not installed",
            "see https://knative.dev/docs/install/ (serving-crds.yaml, serving-core.yaml, a"
            " network layer)",
        )
        return
    yield _version(api, SERVING, "Knative Serving", MIN_SERVING)


def _version(api: Api, namespace: str, name: str, least: tuple[int, int]) -> Check:
    """Knative labels its namespace with its version."""
    try:
        labels = (
            api.request("GET", f"api/v1/namespaces/{namespace}")[1]["metadata"].get("labels") or {}
        )
    except ClusterError:
        return Check(True, f"{name} is installed (version unknown)")
    text = str(labels.get("app.kubernetes.io/version") or "")
    numbers = [int(p) for p in text.lstrip("v").split(".")[:2] if p.isdigit()]
    if len(numbers) == 2 and tuple(numbers) < least:
        wanted = ".".join(str(n) for n in least)
        return Check(False, f"{name} {text} is older than {wanted}", f"upgrade {name}")
    return Check(True, f"{name} {text or '(version unknown)'}")


def _config(api: Api, name: str) -> dict[str, str]:
    """Data of a ConfigMap of Knative Serving; empty if it does not exist."""
    try:
        data: dict[str, str] = api.get("ConfigMap", SERVING, name).get("data") or {}
    except NotFound:
        return {}
    return data


def _flags(api: Api, needs: Needs) -> Iterator[Check]:
    set_to = _config(api, "config-features")
    missing = []
    for flag, reason in needs.flags.items():
        value = set_to.get(flag, "enabled" if flag in keys.DEFAULT_ENABLED_FLAGS else "disabled")
        if value.lower() == "enabled" or (value.lower() == "allowed" and flag not in _EXACT):
            yield Check(True, f"feature flag {flag} is {value.lower()}")
        else:
            missing.append(flag)
            yield Check(
                False,
                f"feature flag {flag} is {value.lower()}, needed by {reason}",
                features.patch_command([flag]),
            )
    if len(missing) > 1:
        yield Check(None, f"all at once: {features.patch_command(missing)}")


_EXACT = frozenset(
    {
        keys.FLAG_INIT_CONTAINERS,
        keys.FLAG_PVC,
        keys.FLAG_PVC_WRITE,
        keys.FLAG_EMPTY_DIR,
        keys.FLAG_MULTI_CONTAINER,
    }
)
"""Flags for which `allowed` is not enough (spec/knative 1.2)."""


def _limits(api: Api, needs: Needs) -> Iterator[Check]:
    longest = max(
        (o["spec"]["template"]["spec"].get("timeoutSeconds") or 0 for o in needs.services),
        default=0,
    )
    defaults = _config(api, "config-defaults")
    limit = int(defaults.get("max-revision-timeout-seconds", "600"))
    if longest > limit:
        yield Check(
            False,
            f"a service's timeout of {longest} s is above the cluster's limit of {limit} s",
            f"kubectl patch configmap config-defaults --namespace {SERVING} --type merge"
            f' --patch \'{{"data":{{"max-revision-timeout-seconds":"{longest}"}}}}\'',
        )
    unlimited = [
        o["metadata"]["name"]
        for o in needs.services
        if not o["spec"]["template"]["spec"].get("containerConcurrency")
    ]
    if unlimited and defaults.get("allow-container-concurrency-zero", "true").lower() == "false":
        yield Check(
            False,
            f"this cluster wants a containerConcurrency, which {', '.join(unlimited)} do not have",
            "set containerConcurrency to what one pod serves well at a time",
        )
    autoscaler = _config(api, "config-autoscaler")
    most = int(autoscaler.get("max-scale-limit", "0"))
    above = [o["metadata"]["name"] for o in needs.services if most and _above(o, most)]
    if above:
        yield Check(
            False,
            f"this cluster allows at most {most} pods; {', '.join(above)} ask for more or for no"
            f" limit",
            f"set maxReplicas to {most} or less",
        )
    zero = [o["metadata"]["name"] for o in needs.services if _initial_scale(o) == "0"]
    allowed = autoscaler.get("allow-zero-initial-scale", "false")
    if zero and allowed != "true":
        yield Check(
            False,
            f"initial-scale 0 is not allowed here, but used by {', '.join(zero)}",
            f"remove the annotation {keys.INITIAL_SCALE}, or set allow-zero-initial-scale",
        )


def _above(item: Object, most: int) -> bool:
    """Whether a max-scale is written that the cluster's limit refuses."""
    annotations = item["spec"]["template"].get("metadata", {}).get("annotations") or {}
    given = scaling.read(annotations).get("max-scale")
    return given is not None and (int(given) == 0 or int(given) > most)


def _initial_scale(item: Object) -> str:
    annotations = item["spec"]["template"].get("metadata", {}).get("annotations") or {}
    return str(annotations.get(keys.INITIAL_SCALE, ""))


def _network(api: Api, needs: Needs) -> Iterator[Check]:
    network = _config(api, "config-network")
    class_ = network.get("ingress-class") or network.get("ingress.class") or ""
    name = class_.partition(".")[0] or "istio (Knative's default)"
    yield Check(True, f"ingress class {name}")
    domains = [d for d in _config(api, "config-domain") if not d.startswith("_")]
    if not domains:
        yield Check(
            None,
            "no domain is configured: public URLs end in svc.cluster.local",
            "set one in the ConfigMap config-domain, or call with the ingress address and a Host"
            " header"
            " (turnout invoke --cluster --ingress ADDRESS)",
        )


_EVENTING_KINDS = {"Broker", "Trigger", "SinkBinding", "IntegrationSource", "PingSource"}


def _eventing(api: Api, needs: Needs) -> Iterator[Check]:
    kinds = sorted({o["kind"] for o in needs.objects} & _EVENTING_KINDS)
    if not kinds:
        return
    try:
        api.request("GET", "apis/eventing.knative.dev/v1")
    except NotFound:
        yield Check(
            False,
            f"Knative Eventing is not installed, but {', '.join(kinds)} need it",
            "see https://knative.dev/docs/install/yaml-install/eventing/",
        )
        return
    yield _version(api, EVENTING, "Knative Eventing", MIN_SERVING)


def _namespaces(api: Api, needs: Needs) -> Iterator[Check]:
    for namespace in needs.namespaces:
        try:
            api.request("GET", f"api/v1/namespaces/{namespace}")
        except NotFound:
            yield Check(
                False,
                f"namespace {namespace} does not exist",
                f"kubectl create namespace {namespace}",
            )


def _permissions(api: Api, needs: Needs) -> Iterator[Check]:
    for namespace in needs.namespaces:
        for verb in ("patch", "create", "delete"):
            attributes = {
                "namespace": namespace,
                "verb": verb,
                "group": "serving.knative.dev",
                "resource": "services",
            }
            review = api.request(
                "POST",
                "apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                body={
                    "apiVersion": "authorization.k8s.io/v1",
                    "kind": "SelfSubjectAccessReview",
                    "spec": {"resourceAttributes": attributes},
                },
            )[1]
            if not (review.get("status") or {}).get("allowed"):
                yield Check(
                    False,
                    f"you may not {verb} services.serving.knative.dev in {namespace}",
                    "ask an administrator for the role knative-serving-namespaced-edit there",
                )


def _references(api: Api, needs: Needs) -> Iterator[Check]:
    """Secrets, ConfigMaps, ServiceAccounts and claims that the Services name and the input does
    not bring."""
    own = {(o["kind"], o["metadata"]["namespace"], o["metadata"]["name"]) for o in needs.objects}
    wanted: dict[tuple[str, str, str], str] = {}
    for service in needs.services:
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        for kind, referred in references(service["spec"]["template"]["spec"]):
            wanted.setdefault((kind, namespace, referred), name)
    for (kind, namespace, name), by in sorted(wanted.items()):
        if (kind, namespace, name) in own:
            continue
        try:
            api.get(kind, namespace, name)
        except NotFound:
            yield Check(
                False,
                f"{kind} {namespace}/{name}, used by {by}, does not exist",
                "create it, or add it to the manifests",
            )


def references(pod: Mapping[str, JSON]) -> Iterator[tuple[str, str]]:
    """(kind, name) of everything a pod refers to and does not call optional."""
    if pod.get("serviceAccountName"):
        yield "ServiceAccount", pod["serviceAccountName"]
    for secret in pod.get("imagePullSecrets") or []:
        yield "Secret", secret["name"]
    for volume in pod.get("volumes") or []:
        for source, kind, key in (
            ("secret", "Secret", "secretName"),
            ("configMap", "ConfigMap", "name"),
            ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
        ):
            found = volume.get(source) or {}
            if found.get(key) and not found.get("optional"):
                yield kind, found[key]
    for container in [*(pod.get("initContainers") or []), *(pod.get("containers") or [])]:
        for source in container.get("envFrom") or []:
            for key, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
                found = source.get(key) or {}
                if found.get("name") and not found.get("optional"):
                    yield kind, found["name"]
        for variable in container.get("env") or []:
            for key, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                found = (variable.get("valueFrom") or {}).get(key) or {}
                if found.get("name") and not found.get("optional"):
                    yield kind, found["name"]


def _images(api: Api, needs: Needs) -> Iterator[Check]:
    """Only what can be said without a registry: names that no registry serves."""
    local = sorted({image for o in needs.services for image in images(o) if _is_local(image)})
    if local:
        yield Check(
            None,
            f"{', '.join(local)}: these names are in no registry; every node needs the image"
            f" loaded",
            "for example `kind load docker-image …`, or push them and compile with --image-prefix",
        )


def pullable(needs: Needs) -> Iterator[Check]:
    """Each image, asked of its registry without credentials. Goes out to the network."""
    from knative.cluster import registry

    wanted = {image for o in needs.services for image in images(o) if not _is_local(image)}
    for image in sorted(wanted):
        there, said = registry.look(image)
        remedy = "check name and tag (--image-prefix, --image UNIT=REF), or push it"
        yield Check(there, f"image {image}: {said}", "" if there else remedy)


def images(item: Mapping[str, JSON]) -> list[str]:
    """Image references of a Service, init containers included."""
    pod = item["spec"]["template"]["spec"]
    both = [*(pod.get("initContainers") or []), *pod["containers"]]
    return [str(c["image"]) for c in both if c.get("image")]


def _is_local(image: str) -> bool:
    return image.partition("/")[0] in ("dev.local", "ko.local", "kind.local")


CHECKS: tuple[Callable[[Api, Needs], Iterator[Check]], ...] = (
    _flags,
    _limits,
    _network,
    _eventing,
    _namespaces,
    _permissions,
    _references,
    _images,
)
"""Checks after Knative Serving was found, in the order of the report."""
