"""What leaves the compiler besides YAML: kn commands, image builds, large graphs, many
namespaces."""

import json
from typing import Any

import pytest

from knative import compiler, errors, kn
from knative.cli import images, main
from knative.options import CompileOptions, Profile


def _service(pod: dict[str, Any], **container: Any) -> dict[str, Any]:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "x", "namespace": "ns"},
        "spec": {"template": {"spec": {"containers": [{"image": "i", **container}], **pod}}},
    }


MOUNT = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (_service({"containerConcurrency": 4}), "--concurrency-limit 4"),
        (_service({"serviceAccountName": "sa"}), "--service-account sa"),
        (_service({"imagePullSecrets": [{"name": "s"}]}), "--pull-secret s"),
        (_service({"nodeSelector": {"a": "b"}}), "--node-selector a=b"),
        (_service({}, ports=[{"containerPort": 9, "name": "h2c"}]), "--port h2c:9"),
        (
            _service(
                {}, env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
            ),
            "--env-value-from A=secret:s:k",
        ),
        (_service({}, envFrom=[{"configMapRef": {"name": "c"}}]), "--env-from cm:c"),
        (_service({}, securityContext={"runAsUser": 7}), "--user 7"),
        (
            _service({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}, **MOUNT),
            "--volume v=secret:s",
        ),
        (
            _service({"volumes": [{"name": "v", "configMap": {"name": "c"}}]}, **MOUNT),
            "--volume v=cm:c",
        ),
        (
            _service(
                {
                    "volumes": [
                        {"name": "v", "persistentVolumeClaim": {"claimName": "p", "readOnly": True}}
                    ]
                },
                **MOUNT,
            ),
            "--volume v=pvc:p:readOnly=true",
        ),
        (
            _service(
                {"volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]},
                **MOUNT,
            ),
            "--volume v=emptyDir:type=Memory,size=1Gi",
        ),
    ],
)
def test_kn_flags(item: dict[str, Any], words: str) -> None:
    assert list(kn.unsayable(item)) == []
    assert words in kn.commands([item])


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (_service({"initContainers": [{"name": "i"}]}), "initContainers"),
        (_service({"affinity": {}}), "affinity"),
        (_service({}, livenessProbe={}), "livenessProbe"),
        (_service({"volumes": [{"name": "v", "csi": {}}]}, **MOUNT), "volume v"),
        (
            _service({}, env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]),
            "env A",
        ),
        (
            _service(
                {"volumes": [{"name": "v", "emptyDir": {}}]},
                volumeMounts=[{"name": "v", "mountPath": "/v", "subPath": "s"}],
            ),
            "subPath",
        ),
    ],
)
def test_kn_says_what_flags_cannot(item: dict[str, Any], reason: str) -> None:
    assert reason in list(kn.unsayable(item))
    assert f"# flags cannot say: {reason}" in kn.commands([item])


def test_objects_that_are_no_services_are_left_to_kubectl() -> None:
    item = {"kind": "Broker", "metadata": {"name": "b", "namespace": "ns"}}
    assert "kubectl apply -f broker-b.yaml" in kn.commands([item])


def _graph(steps: int) -> str:
    step = {"serviceUrl": "http://example.com/" + "x" * 90}
    return json.dumps(
        {
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "InferenceGraph",
            "metadata": {"name": "big"},
            "spec": {"nodes": {"root": {"routerType": "Ensemble", "steps": [step] * steps}}},
        }
    )


def test_a_graph_too_large_for_the_environment_travels_in_a_config_map() -> None:
    objects = compiler.compile_text(_graph(1000)).objects
    assert [o["kind"] for o in objects] == ["ConfigMap", "Service"]
    config, service = objects
    router = service["spec"]["template"]["spec"]["containers"][0]
    assert router["args"] == ["--graph-file", "/etc/turnout/graph/graph.json"]
    assert "env" not in router
    assert len(json.loads(config["data"]["graph.json"])["nodes"]["root"]["steps"]) == 1000
    digests = [
        compiler.compile_text(_graph(n)).objects[1]["spec"]["template"]["metadata"]["annotations"][
            "turnout.dev/graph-digest"
        ]
        for n in (1000, 1001)
    ]
    assert digests[0] != digests[1], "a changed graph must make a revision"


def test_one_name_in_two_namespaces_is_no_clash() -> None:
    text = "\n---\n".join(
        json.dumps(
            {
                "apiVersion": "serving.kserve.io/v1beta1",
                "kind": "InferenceService",
                "metadata": {"name": "m", **({"namespace": ns} if ns else {})},
                "spec": {"predictor": {"sklearn": {"storageUri": "s3://models/x"}}},
            }
        )
        for ns in ("", "b")
    )
    objects = compiler.compile_text(
        text, CompileOptions(namespace="a", profile=Profile.STOCK)
    ).objects
    assert [o["metadata"]["namespace"] for o in objects] == ["a", "b"]


def _image_options(*words: str) -> Any:
    import argparse

    parser = argparse.ArgumentParser()
    images.configure(parser)
    return parser.parse_args(list(words))


def test_images_are_named_as_the_compiler_names_them() -> None:
    references = {image.reference for image in images.images(_image_options())}
    assert references == {
        CompileOptions().image(unit)
        for unit in ("functions", "router-fn", "storage-initializer", "events")
    }


def test_the_build_command_is_the_same_for_every_builder() -> None:
    (image,) = images.images(
        _image_options("--unit", "events", "--image-prefix", "r.io/x/", "--build-arg", "A=b")
    )
    words = images.build_command("podman", image)
    assert words[:6] == [
        "podman",
        "build",
        "--file",
        str(images.ROOT / "events" / "Dockerfile"),
        "--tag",
        f"r.io/x/events:{images.VERSION}",
    ]
    assert words[6:] == ["--build-arg", "A=b", str(images.ROOT)]


def test_without_a_builder_it_says_which_ones_would_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(images.shutil, "which", lambda _: None)
    assert main.run(["images"]) == 1
    assert "none of docker, podman, buildah is installed" in capsys.readouterr().err
    with pytest.raises(errors.UsageError):
        images.run(_image_options("--name", "x", "--builder", "docker"))
