"""What is refused, warned about or needs a flag: one row per fact, all in one table."""

import json
from typing import Any

import pytest

from knative import compiler, errors, features
from knative.options import CompileOptions

MODEL = {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://models/x"}


def _isvc(*, predictor: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "x", **spec.pop("metadata", {})},
        "spec": {"predictor": {"model": MODEL} if predictor is None else predictor, **spec},
    }


def _ksvc(template: dict[str, Any], **spec: Any) -> dict[str, Any]:
    pod = {"containers": [{"image": "img"}], **template.pop("spec", {})}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "x", **spec.pop("metadata", {})},
        "spec": {"template": {"spec": pod, **template}, **spec},
    }


def _pod(**pod: Any) -> dict[str, Any]:
    return _ksvc({"spec": pod})


def _container(**container: Any) -> dict[str, Any]:
    return _pod(containers=[{"image": "img", **container}])


def _init(**container: Any) -> dict[str, Any]:
    return _pod(initContainers=[{"name": "a", "image": "img", **container}])


def _mount(source: dict[str, Any], **mount: Any) -> dict[str, Any]:
    mounts = [{"name": "v", "mountPath": "/v", **mount}]
    return _pod(
        containers=[{"image": "img", "volumeMounts": mounts}], volumes=[{"name": "v", **source}]
    )


def _model(**model: Any) -> dict[str, Any]:
    return _isvc(predictor={"model": {**MODEL, **model}})


def _said(*manifests: dict[str, Any], **options: Any) -> list[str]:
    text = "\n---\n".join(json.dumps(m) for m in manifests)
    try:
        result = compiler.compile_text(text, CompileOptions(**options))
    except errors.ManifestError as error:
        return [f"{p.level}: {p.path}: {p.message}" for p in error.problems]
    return [f"{p.level}: {p.path}: {p.message}" for p in result.problems]


SCALE = "autoscaling.knative.dev/"

REFUSED: list[tuple[dict[str, Any], str]] = [
    # Knative's rules on Services that are passed through
    (_container(name="queue-proxy"), "queue-proxy is Knative's own container"),
    (_container(env=[{"name": "PORT", "value": "1"}]), "PORT is set by Knative itself"),
    (_init(env=[{"name": "K_SERVICE", "value": "1"}]), "K_SERVICE is set by Knative itself"),
    (_init(readinessProbe={"tcpSocket": {}}), "init containers have no probes"),
    (_container(ports=[{"containerPort": 8012}]), "8012 is Knative's own port"),
    (_container(ports=[{"containerPort": 1}, {"containerPort": 2}]), "Knative serves one port"),
    (_container(ports=[{"containerPort": 1, "name": "http"}]), "must be one of http1, h2c"),
    (_container(lifecycle={}), "Knative sets the lifecycle hooks itself"),
    (_container(tty=True), "no terminal"),
    (_container(securityContext={"privileged": True}), "Knative accepts only false here"),
    (_container(securityContext={"runAsUser": 2**31}), "must be between 0 and"),
    (_container(securityContext={"seLinuxOptions": {}}), "does not carry seLinuxOptions"),
    (_container(livenessProbe={}), "exactly one of httpGet, tcpSocket, exec, grpc"),
    (
        _container(readinessProbe={"tcpSocket": {}, "periodSeconds": 0, "timeoutSeconds": 2}),
        "goes with periodSeconds only",
    ),
    (
        _container(readinessProbe={"tcpSocket": {}, "failureThreshold": 2}),
        "goes with periodSeconds only",
    ),
    (_container(readinessProbe={"httpGet": {"port": "web"}}), "not the name of the serving port"),
    (_pod(containers=[{"image": "x"}]), "cannot parse the image reference x"),
    (_pod(containers=[{"image": "example.com/UPPER/x y"}]), "cannot parse the image reference"),
    (_mount({"csi": {"driver": "x"}}), "is a volume of type csi; Knative wants readOnly: true"),
    (_mount({"image": {"reference": "r"}}), "is a volume of type image"),
    (_mount({"emptyDir": {}}, mountPath="/dev/../dev/log/"), "/dev/log cannot be mounted over"),
    (
        _ksvc({"metadata": {"annotations": {"serving.knative.dev/progress-deadline": "1500ms"}}}),
        "must be whole seconds, 1 or more",
    ),
    (
        _ksvc({}, metadata={"annotations": {"serving.knative.dev/rollout-duration": "soon"}}),
        "must be whole seconds, 0 or more",
    ),
    (_container(resources={"claims": []}), "remove claims"),
    (_container(volumeMounts=[{"name": "v", "mountPath": "/v"}]), "no volume is called v"),
    (_pod(containers=[]), "needs at least 1 item"),
    (_pod(containers=[{"image": "aa"}, {"image": "bb"}]), "exactly one, the serving one"),
    (_pod(containers=[{"command": ["x"]}]), "image is required"),
    (_pod(nodeName="n"), "Knative chooses the node itself"),
    (_pod(restartPolicy="Never"), "Knative sets restartPolicy itself"),
    (_pod(automountServiceAccountToken=True), "Knative accepts only false here"),
    (_pod(containerConcurrency=1001), "must be between 0 and 1000"),
    (_pod(volumes=[{"name": "v", "emptyDir": {}}]), "no container mounts v"),
    (_pod(volumes=[{"name": "v", "nfs": {}}]), "Knative carries secret, configMap"),
    (_pod(volumes=[{"name": "v"}]), "none is given"),
    (_mount({"emptyDir": {}}, mountPath="/dev"), "/dev cannot be mounted over"),
    (_mount({"emptyDir": {}}, mountPath="v"), "must be an absolute path"),
    (_mount({"configMap": {"name": "c"}}, readOnly=False), "wants readOnly: true"),
    (
        _mount({"persistentVolumeClaim": {"claimName": "c", "readOnly": True}}),
        "add readOnly: true to the mount",
    ),
    (_ksvc({}, metadata={"annotations": {f"{SCALE}min-scale": "1"}}), "belong on spec.template"),
    (_ksvc({"metadata": {"name": "y-1"}}), 'must begin with "x-"'),
    (_ksvc({}, traffic=[{"latestRevision": True, "percent": 90}]), "add up to 90, not 100"),
    (
        _ksvc({}, traffic=[{"percent": 100, "latestRevision": False}]),
        "exactly one of latestRevision: true and revisionName",
    ),
    (_ksvc({}, metadata={"name": "x" * 64}), "is 64 characters long"),
    # autoscaling
    *(
        (_ksvc({"metadata": {"annotations": {f"{SCALE}{key}": value}}}), words)
        for key, value, words in [
            ("min-scale", "-1", "must be a whole number, 0 or more"),
            ("target", "0", "must be a number, 0.01 or more"),
            ("window", "5s", "must be whole seconds from 6s to 3600s"),
            ("window", "6500ms", "must be whole seconds"),
            ("panic-threshold-percentage", "100", "from 110 to 1000"),
            ("target-burst-capacity", "-2", "-1, 0 or a positive number"),
            ("activation-scale", "1", "2 or more"),
            ("class", "vpa.autoscaling.knative.dev", "or a class of another domain"),
            ("metric", "cpu", "class kpa scales on concurrency or rps"),
            ("metric-aggregation-algorithm", "mean", "one of linear"),
        ]
    ),
    (
        _ksvc({"metadata": {"annotations": {f"{SCALE}minScale": "3", f"{SCALE}max-scale": "2"}}}),
        "max-scale 2 is below min-scale 3",
    ),
    # InferenceService
    (_isvc(predictor={}), "exactly one of model, containers; none is given"),
    (_isvc(predictor={"model": MODEL, "sklearn": {}}), "model and sklearn are given"),
    (_isvc(predictor={"model": MODEL, "minReplicas": 3, "maxReplicas": 2}), "above maxReplicas 2"),
    (_isvc(predictor={"model": MODEL, "scaleMetric": "cpu"}), "cannot scale to zero"),
    (
        _isvc(
            predictor={
                "model": MODEL,
                "scaleMetric": "memory",
                "minReplicas": 1,
                "annotations": {f"{SCALE}class": "kpa.autoscaling.knative.dev"},
            }
        ),
        "class kpa scales on concurrency or rps only",
    ),
    (_isvc(predictor={"model": MODEL, "workerSpec": {}}), "need a Ray cluster"),
    (_isvc(predictor={"model": MODEL, "deploymentStrategy": {}}), "revision by revision"),
    (_isvc(predictor={"model": MODEL, "logger": {}}), "url is required"),
    (
        _isvc(predictor={"containers": [{"image": "img"}], "batcher": {}}),
        "batcher needs KServe's agent sidecar",
    ),
    (_isvc(transformer={}), "a transformer needs containers"),
    (_isvc(explainer={"alibi": {}}), "Alibi explainers are gone"),
    (_model(storageUri="x://y"), "unknown scheme x://"),
    (_model(storage={"key": "k"}), "storageUri and storage say the same thing"),
    (_model(modelFormat={"name": "sklear"}), 'no runtime serves sklear (did you mean "sklearn"?)'),
    (_model(runtime="kserve-sklearn"), "is not in the input and not one of KServe's"),
    (_model(runtime="kserve-tritonserver"), "does not list the model format sklearn"),
    (_model(runtime="kserve-mlserver", protocolVersion="v1"), "speaks v2, not v1"),
    (_model(protocolVersion="v3"), "must be one of v1, v2, grpc-v1, grpc-v2"),
    (_model(env=[{"name": "A", "value": 1}]), 'write "1" in quotes'),
    (_isvc(predictor={"model": MODEL, "storageUris": [{"uri": "s3://a/b"}]}), "exclude each other"),
    (
        _isvc(metadata={"annotations": {"turnout.dev/runtime": "kserve"}}),
        'must be "functions" or "stock"',
    ),
    (_isvc(metadata={"annotations": {"turnout.dev/visibility": "x"}}), 'must be "public" or'),
    (
        {"apiVersion": "serving.kserve.io/v2", "kind": "InferenceService", "metadata": {}},
        "is not known;",
    ),
    ({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}, "kind Pod is not known"),
    ({"apiVersion": "v1", "kind": "Secret", "metadata": {}}, "metadata.name is required"),
    ({"kind": "Secret"}, "apiVersion is required"),
    (
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "hunter2"}},
        "must be base64; plain text goes under stringData",
    ),
]


@pytest.mark.parametrize(("manifest", "words"), REFUSED, ids=[w[:40] for _, w in REFUSED])
def test_refused(manifest: dict[str, Any], words: str) -> None:
    said = [line for line in _said(manifest) if line.startswith("error")]
    assert any(words in line for line in said), said


WARNED: list[tuple[dict[str, Any], str]] = [
    (_ksvc({"metadata": {"annotations": {f"{SCALE}minscale": "1"}}}), 'did you mean "min-scale"?'),
    (_pod(timeoutSeconds=900), "above Knative's limit of 600 s"),
    (_isvc(predictor={"model": MODEL, "minReadySeconds": 3}), "has no effect"),
    (_isvc(metadata={"annotations": {"serving.kserve.io/stop": "true"}}), "is stopped"),
    (
        _isvc(metadata={"annotations": {"turnout.dev/visiblity": "public"}}),
        'did you mean "turnout.dev/visibility"?',
    ),
    (_model(storageUri="file:///x"), "a path inside the pod's own image"),
]


@pytest.mark.parametrize(("manifest", "words"), WARNED, ids=[w[:40] for _, w in WARNED])
def test_warned(manifest: dict[str, Any], words: str) -> None:
    said = _said(manifest)
    assert any(words in line and line.startswith("warning") for line in said), said
    assert not any(line.startswith("error") for line in said)


FLAGS: list[tuple[dict[str, Any], str]] = [
    (_init(), "kubernetes.podspec-init-containers"),
    (_pod(nodeSelector={"a": "b"}), "kubernetes.podspec-nodeselector"),
    (_pod(tolerations=[{"key": "a"}]), "kubernetes.podspec-tolerations"),
    (_pod(affinity={"nodeAffinity": {}}), "kubernetes.podspec-affinity"),
    (_pod(securityContext={"fsGroup": 1}), "kubernetes.podspec-securitycontext"),
    (_pod(runtimeClassName="x"), "kubernetes.podspec-runtimeclassname"),
    (_pod(priorityClassName="x"), "kubernetes.podspec-priorityclassname"),
    (_pod(schedulerName="x"), "kubernetes.podspec-schedulername"),
    (_pod(hostAliases=[{"ip": "1.1.1.1"}]), "kubernetes.podspec-hostaliases"),
    (_pod(shareProcessNamespace=True), "kubernetes.podspec-shareprocessnamespace"),
    (_pod(hostNetwork=True), "kubernetes.podspec-hostnetwork"),
    (
        _container(securityContext={"capabilities": {"add": ["X"]}}),
        "kubernetes.containerspec-addcapabilities",
    ),
    (
        _container(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]),
        "kubernetes.podspec-fieldref",
    ),
    (
        _mount({"persistentVolumeClaim": {"claimName": "c", "readOnly": True}}, readOnly=True),
        "kubernetes.podspec-persistent-volume-claim",
    ),
    (
        _mount({"persistentVolumeClaim": {"claimName": "c"}}),
        "kubernetes.podspec-persistent-volume-write",
    ),
    (_mount({"image": {"reference": "r"}}, readOnly=True), "kubernetes.podspec-volumes-image"),
    (
        _pod(
            containers=[
                {"image": "aa", "name": "a", "ports": [{"containerPort": 1}]},
                {"image": "bb", "name": "b", "livenessProbe": {"tcpSocket": {"port": 9}}},
            ]
        ),
        "multi-container-probing",
    ),
    (_mount({"hostPath": {"path": "/x"}}, readOnly=True), "kubernetes.podspec-volumes-hostpath"),
    (_mount({"csi": {"driver": "x"}}, readOnly=True), "kubernetes.podspec-volumes-csi"),
    (
        _mount({"emptyDir": {}}, mountPropagation="None"),
        "kubernetes.podspec-volumes-mount-propagation",
    ),
]


@pytest.mark.parametrize(("manifest", "flag"), FLAGS, ids=[f for _, f in FLAGS])
def test_needs_a_flag(manifest: dict[str, Any], flag: str) -> None:
    result = compiler.compile_text(json.dumps(manifest))
    assert flag in features.needed(result.flags)
    assert f'"{flag}":"enabled"' in features.advice(result.flags)


def test_a_plain_service_needs_nothing() -> None:
    assert features.advice(compiler.compile_text(json.dumps(_container())).flags) == ""


def test_two_objects_of_one_name_are_both_named() -> None:
    assert _said(_isvc(), _ksvc({})) == [
        "error: metadata.name: Service x is already made from InferenceService x (:1); rename one"
    ]
    (twice,) = _said(_isvc(), _isvc())
    assert "is already defined in" in twice


def test_strict_refuses_extensions_only() -> None:
    graph = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "InferenceGraph",
        "metadata": {"name": "g"},
        "spec": {
            "nodes": {
                "root": {
                    "routerType": "Sequence",
                    "unmet": "Skip",
                    "steps": [{"serviceUrl": "http://a"}],
                }
            }
        },
    }
    assert _said(graph) == []
    (said,) = _said(graph, strict=True)
    assert said.startswith("error: spec.nodes.root.unmet")
    del graph["spec"]["nodes"]["root"]["unmet"]  # type: ignore[index]
    assert _said(graph, strict=True) == []


def test_all_files_are_reported_together(tmp_path: Any) -> None:
    (tmp_path / "a.yaml").write_text("a: [")
    (tmp_path / "b.yaml").write_text(json.dumps(_isvc(predictor={})))
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(errors.ManifestError) as caught:
        compiler.compile_files([tmp_path, tmp_path / "missing.yaml"])
    files = {p.file.rpartition("/")[2] for p in caught.value.problems}
    assert files == {"a.yaml", "b.yaml", "c.yaml", "missing.yaml"}
