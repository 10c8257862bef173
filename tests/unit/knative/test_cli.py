"""The command line: exit codes, streams, formats; and hostile input, which never ends in a
traceback."""

import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from knative.cli import main

GOLDEN = Path(__file__).parents[2] / "golden"
DIGEST = "sha256:" + "0a" * 32
DOGS = str(GOLDEN / "dog-breed" / "in.yaml")


def test_compile_prints_yaml_and_talks_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["compile", DOGS]) == 0
    out, err = capsys.readouterr()
    assert out == (GOLDEN / "dog-breed" / "out.yaml").read_text()
    assert "kubectl patch configmap config-features" in err


def test_compile_reads_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(Path(DOGS).read_bytes()))
    monkeypatch.setattr(sys, "stdin", stream)
    assert main.run(["compile", "-"]) == 0
    assert capsys.readouterr().out == (GOLDEN / "dog-breed" / "out.yaml").read_text()


def test_one_file_per_service(tmp_path: Path) -> None:
    assert main.run(["compile", DOGS, "-o", str(tmp_path / "new" / "dir")]) == 0
    files = sorted((tmp_path / "new" / "dir").iterdir())
    assert [f.name for f in files] == [
        "cat-dog-classifier.yaml",
        "dog-breed-classifier.yaml",
        "dog-breed-pipeline.yaml",
    ]
    parts = [f.read_text() for f in files]
    assert "---\n".join(parts) == (GOLDEN / "dog-breed" / "out.yaml").read_text()


def test_json_is_the_same_objects(capsys: pytest.CaptureFixture[str]) -> None:
    main.run(["compile", DOGS, "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    expected = list(yaml.safe_load_all((GOLDEN / "dog-breed" / "out.yaml").read_text()))
    assert found["items"] == expected


def test_kustomize_lists_every_file(tmp_path: Path) -> None:
    assert main.run(["compile", DOGS, "--format", "kustomize", "-o", str(tmp_path)]) == 0
    listed = yaml.safe_load((tmp_path / "kustomization.yaml").read_text())
    assert {*listed["resources"], "kustomization.yaml"} == {f.name for f in tmp_path.iterdir()}
    assert main.run(["compile", str(tmp_path)]) == 0, "a base is a directory of manifests too"
    assert main.run(["compile", DOGS, "--format", "kustomize"]) == 2


def test_kn_uses_flags_where_they_suffice_and_files_where_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main.run(["compile", DOGS, "--format", "kn"])
    script = capsys.readouterr().out
    assert "# flags cannot say: initContainers" in script
    assert "kn service create cat-dog-classifier --namespace default --filename cat-dog" in script
    main.run(["compile", DOGS, "--format", "kn", "--profile", "stock"])
    script = capsys.readouterr().out
    assert "--filename" not in script
    assert "--arg=--runtime" in script
    assert "--cluster-local" in script
    assert "--scale-min 0" in script
    done = subprocess.run(["sh", "-n"], input=script, text=True, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("functions=r.io/x/f:9", "r.io/x/f:9"),
        (f"functions-pytorch=r.io/p/t@{DIGEST}", f"r.io/p/t@{DIGEST}"),
    ],
)
def test_images_can_be_named_in_full(
    text: str, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["compile", DOGS, "--image", text]) == 0
    assert f'image: "{image}"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["compile"], 2),
        (["compile", DOGS, "--image", "nothing=x"], 2),
        (["compile", DOGS, "--image", "functions="], 2),
        (["compile", DOGS, "--profile", "none"], 2),
        (["lint", DOGS], 0),
        (["lint", DOGS, "--fail-on", "warning"], 1),
        (["lint", DOGS, "--fail-on", "note"], 1),
        (["compile", "/dev/null"], 65),
        (["compile", "/nowhere.yaml"], 65),
        (["compile", "/dev/zero"], 65),
    ],
)
def test_exit_codes(words: list[str], code: int) -> None:
    assert _exit_code(words) == code


def _exit_code(words: list[str]) -> object:
    try:
        return main.run(words)
    except SystemExit as ended:  # argparse
        return ended.code


def test_lint_hides_notes_until_asked(capsys: pytest.CaptureFixture[str]) -> None:
    main.run(["lint", DOGS])
    assert "[max-scale]" not in capsys.readouterr().out
    main.run(["lint", DOGS, "--notes"])
    assert "[max-scale]" in capsys.readouterr().out


ISVC = b"apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: x}\n"
HOSTILE = {
    "tabs": b"spec:\n\tpredictor: {}\n",
    "not utf-8": b"name: caf\xe9\n",
    "utf-16 broken": b"\xff\xfe\x00",
    "binary": bytes(range(256)) * 40,
    "bomb": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(
        b"%c: &%c [%s]\n" % (97 + i, 97 + i, b",".join([b"*%c" % (96 + i)] * 9))
        for i in range(1, 12)
    ),
    "anchor loop": b"a: &a {b: *a}\n",
    "deep": b"a: " + b"{a: " * 5000,
    "deep block": b"".join(b"  " * i + b"a:\n" for i in range(500)),
    "duplicate keys": ISVC + b"spec: {predictor: {sklearn: {}, sklearn: {}}}\n",
    "norway": ISVC.replace(b"name: x", b"name: no") + b"spec: {predictor: {sklearn: {}}}\n",
    "number as name": ISVC.replace(b"name: x", b"name: 1e3") + b"spec: {predictor: {}}\n",
    "list": b"- a\n- b\n",
    "text": b"hello\n",
    "number": b"12\n",
    "empty": b"",
    "only comments": b"# nothing\n---\n# more\n",
    "no kind": b"a: b\n",
    "kind is a list": b"apiVersion: v1\nkind: [Service]\n",
    "metadata is text": b"apiVersion: v1\nkind: Secret\nmetadata: x\n",
    "labels are a list": b"apiVersion: v1\nkind: Secret\nmetadata: {name: x, labels: [a]}\n",
    "annotation is a number": ISVC.replace(b"{name: x}", b"{name: x, annotations: {a: 1}}")
    + b"spec: {predictor: {sklearn: {storageUri: s3://models/x}}}\n",
    "spec is null": ISVC + b"spec:\n",
    "spec is text": ISVC + b"spec: x\n",
    "predictor is a list": ISVC + b"spec: {predictor: []}\n",
    "containers is text": ISVC + b"spec: {predictor: {containers: x}}\n",
    "container is null": ISVC + b"spec: {predictor: {containers: [null]}}\n",
    "no containers": ISVC + b"spec: {predictor: {containers: []}}\n",
    "model is null": ISVC + b"spec: {predictor: {model: }}\n",
    "format is text": ISVC + b"spec: {predictor: {model: {modelFormat: sklearn}}}\n",
    "same name twice": ISVC + b"spec: {predictor: {sklearn: {}}}\n---\n" + ISVC + b"spec: {}\n",
    "list of nothing": b"apiVersion: v1\nkind: List\nitems: [null, 1, {}]\n",
    "graph of nothing": b"apiVersion: serving.kserve.io/v1alpha1\nkind: InferenceGraph\n"
    b"metadata: {name: g}\nspec: {nodes: {root: [1]}}\n",
    "graph steps are text": b"apiVersion: serving.kserve.io/v1alpha1\nkind: InferenceGraph\n"
    b"metadata: {name: g}\nspec: {nodes: {root: {routerType: Sequence, steps: x}}}\n",
    "service of nothing": b"apiVersion: serving.knative.dev/v1\nkind: Service\n"
    b"metadata: {name: g}\nspec: {template: {spec: {containers: [{}]}}}\n",
    "traffic is text": b"apiVersion: serving.knative.dev/v1\nkind: Service\n"
    b"metadata: {name: g}\nspec: {template: {spec: {containers: [{image: i}]}}, traffic: x}\n",
    "huge number": b"a: 1e99999\n",
    "very long line": b"a: " + b"x" * 10_000_000 + b"\n",
    "many documents": b"---\na: 1\n" * 20_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_is_refused_with_a_place_and_no_traceback(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "in.yaml"
    file.write_bytes(HOSTILE[name])
    assert main.run(["compile", str(file)]) == 65
    out, err = capsys.readouterr()
    assert out == ""
    assert "in.yaml" in err
    assert "Traceback" not in err


def test_a_thousand_services_and_two_hundred_graphs(tmp_path: Path) -> None:
    """Under 3 s of CPU and 300 MB on the machine this was written on."""
    service = (
        "---\n" + ISVC.decode() + "spec: {predictor: {sklearn: {storageUri: s3://models/x}}}\n"
    )
    step = "{serviceName: m%d, name: s%d, data: $request, condition: '[@this].#(p.0==\"a\")'}"
    graph = (
        "---\napiVersion: serving.kserve.io/v1alpha1\nkind: InferenceGraph\nmetadata: {name: g%d}\n"
        "spec: {nodes: {root: {routerType: Sequence, unmet: Skip, steps: [%s]}}}\n"
    )
    with (tmp_path / "big.yaml").open("w") as file:
        for i in range(1000):
            file.write(service.replace("name: x", f"name: m{i}"))
        for i in range(200):
            file.write(graph % (i, ", ".join(step % (i + 200 * k, k) for k in range(5))))
    program = (
        "import resource, sys; from knative.cli import main;"
        f"code = main.run(['compile', {str(tmp_path / 'big.yaml')!r}]);"
        "used = resource.getrusage(resource.RUSAGE_SELF);"
        # Not ru_maxrss: across exec it remembers the process that started this one.
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'));"
        "peak = int(status['VmHWM'].split()[0]);"
        "sys.stderr.write(f'\\n{code} {used.ru_utime + used.ru_stime} {peak}')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    code, cpu_s, rss_kib = done.stderr.splitlines()[-1].split()
    assert code == "0"
    assert done.stdout.count("kind: Service") == 1200
    assert float(cpu_s) < 3
    assert int(rss_kib) < 300 * 1024


HEAVY = {
    "kubernetes",
    "flask",
    "requests",
    "uvloop",
    "httptools",
    "asyncio",
    "numpy",
    "jsonpath_ng",
}


def test_compiling_loads_nothing_heavy() -> None:
    """What a whole compilation of models and a graph has loaded, not only its imports."""
    program = (
        "import json, sys; from knative.cli import main;"
        f"code = main.run(['compile', {DOGS!r}, '-o', sys.argv[1]]);"
        "print(json.dumps([code, sorted(sys.modules)]))"
    )
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", program, folder], capture_output=True, text=True, check=True
        )
    code, loaded = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert not HEAVY & set(loaded)
    assert len(loaded) <= 220
