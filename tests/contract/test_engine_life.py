"""Pods and engines from start to end: volumes, scaling, rolling, faults, what is left behind."""

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.fakes_engine import (
    APP,
    ROOT,
    TURNOUT,
    alive,
    running,
    service,
    start,
    turnout,
    until,
    write,
)

SHORT = ("--window", "6s", "--stop-grace", "3s")


def secret(name: str, **values: str) -> dict[str, Any]:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def config_map(name: str, **values: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": values}


def test_volumes_variables_and_init_containers(tmp_path: Path) -> None:
    init = {
        "name": "fetch",
        "image": "img",
        "command": ["python", "-c"],
        "args": [
            "import os,sys;d=sys.argv[1];n=len(os.listdir(d));"
            "open(f'{d}/step{n}','w').write(os.environ.get('AWS_SECRET_ACCESS_KEY','none'))",
            "/mnt/models",
        ],
        "volumeMounts": [{"name": "models", "mountPath": "/mnt/models"}],
    }
    made = service(
        "full",
        args=["--dir=/mnt/models", "$(GREETING) $(UNKNOWN) $$(GREETING)", "/mnt/models-not"],
        envFrom=[{"configMapRef": {"name": "settings"}, "prefix": "CM_"}],
        volumeMounts=[
            {"name": "models", "mountPath": "/mnt/models", "readOnly": True},
            {"name": "keys", "mountPath": "/etc/keys", "readOnly": True},
            {"name": "scratch", "mountPath": "/var/scratch"},
            {"name": "data", "mountPath": "/data", "readOnly": True},
        ],
        resources={"limits": {"cpu": "2"}},
        spec={
            "initContainers": [{**init, "name": "first"}, {**init, "name": "second"}],
            "volumes": [
                {"name": "models", "emptyDir": {}},
                {"name": "keys", "secret": {"secretName": "keys"}},
                {"name": "scratch", "emptyDir": {"medium": "Memory"}},
                {"name": "data", "persistentVolumeClaim": {"claimName": "store", "readOnly": True}},
            ],
        },
    )
    container = made["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [
        {"name": "GREETING", "value": "hello"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        {"name": "SCRATCH", "value": "/var/scratch/x"},
        {"name": "WHERE", "value": "file:///mnt/models/x"},
    ]
    (tmp_path / "store").mkdir()
    objects = (made, secret("keys", token="t0p"), config_map("settings", mode="fast"))
    os.environ["AWS_SECRET_ACCESS_KEY"] = "for-init-only"
    try:
        with running(
            tmp_path, *objects, arguments=("--claim", f"store={tmp_path}/store")
        ) as engine:
            got = engine.call("full").json
            assert "env" in got, got
            env, args = got["env"], got["args"]
            models = Path(args[0].removeprefix("--dir="))
            assert models.is_relative_to(tmp_path)
            assert (models / "step0").read_text() == (models / "step1").read_text()
            assert (models / "step0").read_text() == "for-init-only"
            assert args[1:] == ["hello $(UNKNOWN) $(GREETING)", "/mnt/models-not"]
            assert env["WHERE"] == f"file://{models}/x"
            assert (env["TOKEN"], env["CM_mode"]) == ("t0p", "fast")
            assert "AWS_SECRET_ACCESS_KEY" not in env
            assert env["OMP_NUM_THREADS"] == "2"
            assert env["TERMINATION_LOG"].startswith(str(tmp_path))
            assert env["SCRATCH"].endswith("/volumes/scratch/x")
            keys = models.parent / "keys"
            assert (keys / "token").read_text() == "t0p"
            assert (keys / "token").stat().st_mode & 0o077 == 0
            pods_dir = engine.state / "pods"
            assert any(pods_dir.iterdir())
        assert not pods_dir.exists()
    finally:
        del os.environ["AWS_SECRET_ACCESS_KEY"]


def test_scale_to_zero_and_back(tmp_path: Path) -> None:
    with running(tmp_path, service("echo"), arguments=SHORT) as engine:
        assert engine.service("echo")["desired"] == 0
        pid = engine.call("echo").json["pid"]
        until(lambda: not engine.pods("echo"), 20, 0.1)
        assert not alive(pid)
        assert engine.call("echo").json["pid"] != pid
        revision = engine.service("echo")["revisions"][0]
        assert revision["cold_starts"] == 2


def test_burst_scales_out_and_the_cap_is_shown(tmp_path: Path) -> None:
    made = service(
        "single",
        spec={"containerConcurrency": 1},
        resources={"requests": {"cpu": "1500m"}},
        annotations={"max-scale": "20"},
    )
    with running(tmp_path, made) as engine:
        threads = [
            threading.Thread(target=engine.call, args=("single", "/sleep?s=3")) for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        until(lambda: engine.service("single")["ready"] >= 3, 15)
        until(lambda: engine.service("single")["revisions"][0]["pending"], 15)
        revision = engine.service("single")["revisions"][0]
        assert "Insufficient cpu" in revision["pending"]
        assert revision["desired"] > revision["ready"]
        shown = turnout("ps", "--port", str(engine.port)).stdout
        assert "Pending (Insufficient cpu" in shown
        for thread in threads:
            thread.join()


def test_changed_manifest_rolls_without_losing_a_request(tmp_path: Path) -> None:
    file = write(tmp_path / "objects.yaml", service("echo", env={"VERSION": "1"}))
    with start(tmp_path, str(file), "--watch") as engine:
        engine.wait_ready()
        assert engine.call("echo").json["env"]["VERSION"] == "1"
        statuses: list[int] = []
        seen: list[list[str]] = [[], [], []]
        done = threading.Event()

        def load(versions: list[str]) -> None:
            while not done.is_set():
                answer = engine.call("echo", "/sleep?s=0.02")
                statuses.append(answer.status)
                versions.append(answer.json["env"]["VERSION"])

        threads = [threading.Thread(target=load, args=(versions,)) for versions in seen]
        for thread in threads:
            thread.start()
        write(file, service("echo", env={"VERSION": "2", "START_DELAY": "0.5"}))
        until(lambda: all("2" in versions for versions in seen), 30)
        done.set()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200}
        assert seen == [sorted(versions) for versions in seen]  # nobody goes back to the old one
        assert engine.service("echo")["serving"] == "echo-00002"
        until(lambda: len(engine.pods("echo")) == 1, 20)


def test_broken_new_revision_leaves_the_old_one_serving(tmp_path: Path) -> None:
    file = write(tmp_path / "objects.yaml", service("echo"))
    with start(tmp_path, str(file), "--watch") as engine:
        engine.wait_ready()
        engine.call("echo")
        write(file, service("echo", command=["python", "-c", "raise SystemExit('broken')"]))
        until(lambda: "echo-00002" in engine.output and "broken" in engine.output, 20)
        assert engine.call("echo").json["env"]["K_REVISION"] == "echo-00001"
        file.write_text("kind: [")
        until(lambda: "not applied" in engine.output, 20)
        assert engine.call("echo").status == 200


def test_traffic_split_and_tags(tmp_path: Path) -> None:
    first = service("echo", env={"VERSION": "1"})
    with running(tmp_path, first) as engine:
        engine.call("echo")
    traffic = [
        {"revisionName": "echo-00001", "percent": 50, "tag": "old"},
        {"latestRevision": True, "percent": 50, "tag": "new"},
    ]
    second = service("echo", env={"VERSION": "2"}, traffic=traffic)
    with running(tmp_path, second) as engine:
        versions = [engine.call("echo").json["env"]["VERSION"] for _ in range(40)]
        assert 5 < versions.count("1") < 35
        old = engine.call("echo", host="old-echo.default.svc.cluster.local").json["env"]
        assert (old["VERSION"], old["K_REVISION"]) == ("1", "echo-00001")
        tagged = engine.call("echo", headers={"Knative-Serving-Tag": "new"}).json["env"]
        assert tagged["K_REVISION"] == "echo-00002"


def test_min_scale_is_ready_before_ready_is_said(tmp_path: Path) -> None:
    made = service("echo", env={"START_DELAY": "0.3"}, annotations={"min-scale": "2"})
    with running(tmp_path, made) as engine:
        assert engine.service("echo")["ready"] == 2
        assert {pod["state"] for pod in engine.pods("echo")} == {"Ready"}


def test_sidecars_run_beside_the_serving_container(tmp_path: Path) -> None:
    made = service("pair", ports=[{"containerPort": 8080}])
    side = tmp_path / "side.txt"
    write_port = f"open({str(side)!r},'w').write(os.environ.get('PORT','no port'))"
    script = f"import os,time;{write_port};time.sleep(99)"
    containers = made["spec"]["template"]["spec"]["containers"]
    containers.append({"name": "side", "image": "img", "command": ["python", "-c", script]})
    with running(tmp_path, made) as engine:
        assert engine.call("pair").status == 200
        until(side.exists)
        assert len(engine.pods("pair")[0]["pids"]) == 2
        until(lambda: side.read_text() == "no port")


def test_every_pod_has_its_own_ports_between_its_containers(tmp_path: Path) -> None:
    """Two pods on one machine, both told to meet on 9000."""
    made = service(
        "pair",
        ports=[{"containerPort": 8080}],
        env={"PEER": '["http://localhost:9000/"]'},
        annotations={"min-scale": "2"},
    )
    made["spec"]["template"]["metadata"]["annotations"]["turnout.dev/pod-ports"] = "9000"
    command = ["python", "-m", "http.server", "--bind", "127.0.0.1", "$(HTTP_PORT)"]
    made["spec"]["template"]["spec"]["containers"].append(
        {
            "name": "side",
            "image": "img",
            "command": command,
            "env": [{"name": "HTTP_PORT", "value": "9000"}],
        }
    )
    with running(tmp_path, made) as engine:
        peers: set[str] = set()

        def both_seen() -> bool:
            peers.add(engine.call("pair").json["env"]["PEER"])
            return len(peers) == 2

        until(both_seen)
        for text in peers:
            (url,) = json.loads(text)
            assert not url.endswith(":9000/")
            until(lambda url=url: answers(url))


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status) == 200
    except OSError:
        return False


def test_http_readiness_holds_requests_back(tmp_path: Path) -> None:
    probe = {"httpGet": {"path": "/readyz"}, "periodSeconds": 1, "failureThreshold": 1}
    with running(tmp_path, service("echo", readinessProbe=probe)) as engine:
        assert engine.call("echo").status == 200
        engine.call("echo", "/ready?value=0")
        until(lambda: engine.pods("echo")[0]["state"] == "Unready", 10)


def test_liveness_failure_restarts_the_pod(tmp_path: Path) -> None:
    probe = {"exec": {"command": ["test", "-e", "/data/alive"]}, "periodSeconds": 1,
             "failureThreshold": 1}  # fmt: skip
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "alive").touch()
    made = service(
        "echo",
        livenessProbe=probe,
        volumeMounts=[{"name": "data", "mountPath": "/data", "readOnly": True}],
        spec={
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "d", "readOnly": True}}
            ]
        },
    )
    with running(tmp_path, made, arguments=("--claim", f"d={tmp_path}/data")) as engine:
        first = engine.call("echo").json["pid"]
        (tmp_path / "data" / "alive").unlink()
        until(lambda: not alive(first), 15)
        (tmp_path / "data" / "alive").touch()
        until(lambda: "liveness probe failed" in engine.output, 5)
        until(lambda: engine.pods("echo")[0]["state"] == "Ready", 15)
        assert engine.call("echo").json["pid"] != first


# --- faults ---


def test_container_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    made = service("stubborn", env={"IGNORE_TERM": "1"})
    with running(tmp_path, made, arguments=("--stop-grace", "1s")) as engine:
        pid = engine.call("stubborn").json["pid"]
        before = time.monotonic()
        assert engine.stop() == 0
        assert time.monotonic() - before < 10
        assert not alive(pid)


def test_forked_daemons_end_with_their_pod(tmp_path: Path) -> None:
    with running(tmp_path, service("forker")) as engine:
        daemon = int(engine.call("forker", "/fork").json["options"]["pid"])
        assert alive(daemon)
        assert engine.admin("scale", service="forker", replicas=0)["desired"] == 0
        until(lambda: not alive(daemon), 15)


def test_killed_engine_leaves_no_process_and_the_next_one_starts(tmp_path: Path) -> None:
    objects = [service("echo"), service("forker")]
    with running(tmp_path, *objects) as engine:
        pids = [
            engine.call("echo").json["pid"],
            engine.call("forker").json["pid"],
            int(engine.call("forker", "/fork").json["options"]["pid"]),
        ]
        assert all(alive(pid) for pid in pids)
        engine.stop(signal.SIGKILL)
        until(lambda: not any(alive(pid) for pid in pids), 5)
    with running(tmp_path, *objects) as engine:
        assert engine.call("echo").status == 200
        assert engine.service("echo")["latest"] == "echo-00001"


def test_killed_spawner_costs_the_pods_but_not_the_engine(tmp_path: Path) -> None:
    with running(tmp_path, service("echo")) as engine:
        pid = engine.call("echo").json["pid"]
        spawner = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(spawner, signal.SIGKILL)
        until(lambda: not alive(pid), 5)
        until(lambda: engine.call("echo").status == 200, 15)


def test_log_flood_is_bounded_and_the_service_goes_on(tmp_path: Path) -> None:
    with running(tmp_path, service("loud")) as engine:
        engine.call("loud", "/flood?n=30000000", timeout_s=60)
        assert engine.call("loud").status == 200
        folder = Path(engine.pods("loud")[0]["log_dir"])
        until(lambda: (folder / "user-container.log.1").exists(), 10)
        assert sum(file.stat().st_size for file in folder.iterdir()) < 20_000_000


def test_container_above_its_memory_limit_is_killed(tmp_path: Path) -> None:
    script = (
        "import os,socket;s=socket.create_server(('127.0.0.1',int(os.environ['PORT'])));"
        "x=bytearray(b'x')*90_000_000;s.accept()[0].recv(1);import time;time.sleep(99)"
    )
    limits = {"limits": {"memory": "64Mi"}}
    made = service("greedy", command=["python", "-c", script], resources=limits)
    with running(tmp_path, made) as engine:
        engine.admin("scale", service="greedy", replicas=1)
        until(lambda: "OOMKilled" in engine.output, 20)
        assert "its limit is 64 MiB" in engine.output


def test_dying_container_comes_back(tmp_path: Path) -> None:
    with running(tmp_path, service("mortal", env={"DIE_AFTER": "1"})) as engine:
        first = engine.call("mortal").json["pid"]
        until(lambda: "exited with code 9" in engine.output, 10)

        def reborn() -> bool:
            answer = engine.call("mortal")
            return answer.status == 200 and answer.json["pid"] != first

        until(reborn, 20)
        assert engine.pods("mortal")[0]["restarts"] >= 1


def test_init_failure_shows_its_termination_message(tmp_path: Path) -> None:
    write_message = "open(os.environ['TERMINATION_LOG'],'w').write('bucket not found')"
    script = f"import os,sys;{write_message};sys.exit(1)"
    made = service(
        "fetcher",
        spec={
            "initContainers": [{"name": "get", "image": "img", "command": ["python", "-c", script]}]
        },
    )
    with running(tmp_path, made) as engine:
        answer = engine.call("fetcher")
        assert answer.status == 503
        assert "Init:Error" in answer.json["error"]
        assert "bucket not found" in answer.json["error"]
        status = turnout("status", "--port", str(engine.port))
        assert status.returncode == 1
        assert "bucket not found" in status.stdout


def test_full_disk_loses_log_lines_but_no_request(tmp_path: Path) -> None:
    with running(tmp_path, service("echo")) as engine:
        engine.call("echo")
        folder = Path(engine.pods("echo")[0]["log_dir"])
        engine.admin("scale", service="echo", replicas=0)
        until(lambda: not engine.pods("echo"), 15)
        folder.parent.chmod(0o755)
        for pod in folder.parent.iterdir():
            pod.rename(tmp_path / pod.name)
        folder.parent.rmdir()
        folder.parent.symlink_to("/dev/full")  # every write below it fails
        engine.admin("scale", service="echo", replicas=None)
        answer = engine.call("echo")
        assert answer.status == 503
        assert "cannot prepare the pod" in answer.json["error"]
        folder.parent.unlink()
        until(lambda: engine.call("echo").status == 200, 15)


# --- engines ---


def test_port_in_use_is_said_clearly(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = write(tmp_path / "o.yaml", service("echo"))
        with start(tmp_path, str(file), port=port) as engine:
            assert engine.process.wait(20) == 75
            assert f"port {port}" in engine.output
            assert "--port" in engine.output
            assert "Traceback" not in engine.output


def test_state_directory_has_one_owner(tmp_path: Path) -> None:
    with running(tmp_path, service("echo")) as engine:
        result = turnout(
            "up", str(tmp_path / "objects.yaml"), "--port", "0", "--state-dir", str(engine.state)
        )
        assert result.returncode == 75
        assert f"pid {engine.process.pid}" in result.stderr
        assert engine.call("echo").status == 200


def test_two_engines_do_not_disturb_each_other(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    made = [service("echo")]
    with running(tmp_path / "a", *made) as first, running(tmp_path / "b", *made) as second:
        pids = {first.call("echo").json["pid"], second.call("echo").json["pid"]}
        assert len(pids) == 2
        first.stop()
        assert second.call("echo").status == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_finishes_what_is_under_way(tmp_path: Path, number: int) -> None:
    with running(tmp_path, service("echo")) as engine:
        pid = engine.call("echo").json["pid"]
        answers: list[int] = []
        thread = threading.Thread(
            target=lambda: answers.append(engine.call("echo", "/sleep?s=1").status)
        )
        thread.start()
        until(lambda: engine.service("echo")["revisions"][0]["concurrency"] == 1)
        assert engine.stop(number) == 0
        thread.join()
        assert answers == [200]
        assert not alive(pid)
        assert not (engine.state / "engine.json").exists()


def test_detached_engine_and_the_verbs(tmp_path: Path) -> None:
    file = write(tmp_path / "o.yaml", service("echo"), service("other"))
    state = str(tmp_path / "state")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    up = turnout("up", "-d", str(file), "--port", port, "--state-dir", state)
    try:
        assert up.returncode == 0, up.stderr
        assert up.stdout.splitlines()[-1] == "ready"
        invoked = turnout("invoke", "echo", "--port", port, "--json", '{"a": 1}')
        assert invoked.returncode == 0
        assert "HTTP 200" in invoked.stderr
        assert json.loads(json.loads(invoked.stdout)["body"]) == {"a": 1}
        image = turnout("invoke", "echo", "--state-dir", state, "--image", str(APP))
        sent = json.loads(json.loads(image.stdout)["body"])["instances"][0]["data"]
        assert base64.b64decode(sent) == APP.read_bytes()
        assert "listening" in turnout("logs", "echo", "--port", port).stdout
        assert "1/1" in turnout("ps", "--port", port).stdout
        assert turnout("scale", "other=2", "--port", port).stdout == "default/other: 2 replicas\n"
        until(lambda: "2/2" in turnout("ps", "--port", port).stdout)
        assert "1 pods restarted" in turnout("restart", "echo", "--port", port).stdout
        assert turnout("scale", "nope=1", "--port", port).returncode == 1
        assert json.loads(turnout("status", "--json", "--port", port).stdout)["troubles"] == []
        assert turnout("events", "--port", port).returncode == 0
    finally:
        down = turnout("down", "--port", port)
    assert down.stdout == "stopped\n"
    assert "no engine is running" in turnout("ps", "--port", port).stderr


def test_unusable_manifests_are_reported_together(tmp_path: Path) -> None:
    bad = service("one", command=[])
    file = write(tmp_path / "o.yaml", bad, service("two", env={"A": "1"}, command=[]))
    with start(tmp_path, str(file)) as engine:
        assert engine.process.wait(20) == 65
        assert "--map" in engine.output
        assert engine.output.count("has no command here") == 2
    with start(tmp_path, str(file), "--map", f"test=python {APP}") as engine:
        engine.wait_ready()
        assert engine.call("one").status == 200


def test_damaged_state_is_set_aside(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "revisions.json").write_text("{not json")
    (state / "engine.json").write_text("[]")
    with running(tmp_path, service("echo")) as engine:
        assert engine.call("echo").status == 200
    assert (state / "revisions.json.damaged").exists()


def test_a_frozen_container_does_not_hold_up_the_engine(tmp_path: Path) -> None:
    with running(tmp_path, service("echo"), arguments=("--stop-grace", "1s")) as engine:
        pid = engine.call("echo").json["pid"]
        os.kill(pid, signal.SIGSTOP)
        assert engine.stop() == 0
        assert not alive(pid)


def test_no_process_survives_the_tests(tmp_path: Path) -> None:
    """Nobody carries the mark of an engine below this run's folders any more."""
    mark = f"TURNOUT_POD={tmp_path.parent}".encode()

    def marked() -> list[str]:
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                    found.append(entry.name)
        return found

    until(lambda: not marked(), 5)


def test_gradual_rollout_moves_traffic_in_steps(tmp_path: Path) -> None:
    def version(number: str) -> dict[str, Any]:
        made = service("echo", env={"VERSION": number})
        made["metadata"]["annotations"] = {"serving.knative.dev/rollout-duration": "5s"}
        return made

    file = write(tmp_path / "objects.yaml", version("1"))
    with start(tmp_path, str(file), "--watch") as engine:
        engine.wait_ready()
        engine.call("echo")
        write(file, version("2"))
        until(lambda: "over 5 s" in engine.output, 20)
        seen = [engine.call("echo").json["env"]["VERSION"] for _ in range(30)]
        assert seen.count("1") > 15
        until(lambda: "all traffic is at echo-00002" in engine.output, 20)
        assert {engine.call("echo").json["env"]["VERSION"] for _ in range(10)} == {"2"}


FAKE_DOCKER = """#!{python}
import os, sys
LOG = {log!r}
with open(LOG, "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] == "run":
    words = sys.argv[2:]
    while words and words[0].startswith("-"):
        words = words[1:] if words[0] in ("--rm", "--init") or "=" in words[0] else words[2:]
    os.execv({python!r}, [{python!r}, {app!r}, *words])
"""


def test_images_run_with_a_container_engine_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    program, log = tmp_path / "bin" / "docker", tmp_path / "docker.log"
    program.write_text(FAKE_DOCKER.format(python=sys.executable, log=str(log), app=str(APP)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    made = service(
        "boxed",
        command=[],
        image="registry.example.org/app:1",
        args=["--dir=/data"],
        env={"SECRET": "s3cret"},
        volumeMounts=[{"name": "d", "mountPath": "/data"}],
        spec={"volumes": [{"name": "d", "emptyDir": {}}]},
    )
    with running(tmp_path, made, arguments=("--container-engine", "docker")) as engine:
        got = engine.call("boxed").json
        assert got["args"] == ["registry.example.org/app:1", "--dir=/data"]
        assert got["env"]["SECRET"] == "s3cret"
        name = f"turnout-{engine.pods('boxed')[0]['name']}-user-container"
    calls = log.read_text().splitlines()
    assert calls[0].startswith("ps --all --quiet --filter label=turnout.engine=")
    run = next(line for line in calls if line.startswith("run "))
    assert f"--name {name}" in run
    assert "--network=host" in run
    assert f"{tmp_path}/state/pods/" in run
    assert ":/data" in run
    assert "s3cret" not in run
    assert calls[-1] == f"rm --force {name}"


def test_missing_container_engine_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "o.yaml", service("echo"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with start(tmp_path, str(file), "--container-engine", "podman") as engine:
        assert engine.process.wait(20) == 1
        assert "--container-engine podman: there is no such program" in engine.output


def test_logs_of_all_services_and_following(tmp_path: Path) -> None:
    with running(tmp_path, service("one"), service("two")) as engine:
        engine.call("one")
        engine.call("two")
        both = turnout("logs", "--port", str(engine.port)).stdout
        assert "[default/one] " in both
        assert "[default/two] " in both
        follower = subprocess.Popen(
            [*TURNOUT, "logs", "-f", "one", "--port", str(engine.port)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        try:
            assert follower.stdout is not None
            assert "listening" in follower.stdout.readline()
            engine.call("one", "/flood?n=1000")
            assert follower.stdout.readline() == "x" * 999 + "\n"
            engine.admin("restart", service="one")
            assert follower.stdout.readline().startswith("==> one-00001-deployment-")
            assert "listening" in follower.stdout.readline()
        finally:
            follower.kill()
            follower.communicate()
