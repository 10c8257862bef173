"""What the demo leaves behind when something went wrong: its logs, and where they are."""

from pathlib import Path

from knative.demo import story


def test_the_logs_of_a_failed_demo_are_kept_and_replace_older_ones(tmp_path: Path) -> None:
    work, target = tmp_path / "work", tmp_path / "kept"
    pod = work / "engine" / "state" / "logs" / "default" / "cat" / "pod-1"
    pod.mkdir(parents=True)
    (pod / "kserve-container.log").write_text("no weights")
    (work / "engine" / "up.log").write_text("ready")
    target.mkdir()
    (target / "old.log").write_text("yesterday")
    assert story.keep_logs(work, target) == target
    found = {str(path.relative_to(target)) for path in target.rglob("*.log")}
    assert found == {"up.log", "pods/default/cat/pod-1/kserve-container.log"}


def test_a_demo_that_failed_early_has_little_to_keep(tmp_path: Path) -> None:
    assert list(story.keep_logs(tmp_path / "nothing", tmp_path / "kept").iterdir()) == []
