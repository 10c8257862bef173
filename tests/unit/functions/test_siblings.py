"""Workers of one server that tell each other what to load and how, as two repositories in one
process."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from functions import repository as module
from functions.errors import LoadFailed
from functions.model import ModelInfo, ServedModel
from functions.repository import Repository
from functions.settings import Settings


class Versioned(ServedModel):
    """Serves the versions that its policy names, but for one that is broken here."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.labels: dict[str, int] = {}
        self.info = ModelInfo(platform="p", versions=("1",))

    def reconfigure(self, policy: str, labels: dict[str, int]) -> None:
        self.labels = labels
        versions = policy.partition(":")[2].split(",")
        self.info = ModelInfo(platform="p", versions=tuple(v for v in versions if v != self.broken))


async def worker(folder: Path, pid: int, model: Versioned | None = None) -> Repository:
    settings = Settings(model_name="m", model_dir=str(folder), shared_dir=str(folder))
    repository = Repository(settings, {"m": model or Versioned()})
    assert repository.siblings is not None
    repository.siblings._own = folder / f"worker-{pid}"
    await repository.load_all()
    return repository


def state(repository: Repository) -> tuple[Any, Any]:
    model: Any = repository.entries["m"].model
    return model.info.versions, model.labels


CONFIG = {"m": {"policy": "specific:2,3", "labels": {"stable": 2}}}


def between_two(test: Any, tmp_path: Path, model: Versioned | None = None) -> None:
    """`test(one, two)`, which follow each other."""

    async def run() -> None:
        one = await worker(tmp_path, os.getpid())
        two = await worker(tmp_path, os.getppid(), model)
        following = [asyncio.create_task(each.follow()) for each in (one, two)]
        async with asyncio.timeout(30):
            while len(list(tmp_path.glob("worker-*"))) < 2:
                await asyncio.sleep(0.01)
            await test(one, two)
        for task in following:
            task.cancel()
        for each in (one, two):
            each.close()

    asyncio.run(run())


def test_a_configuration_is_everywhere_when_the_answer_comes(tmp_path: Path) -> None:
    async def test(one: Repository, two: Repository) -> None:
        await one.configure(CONFIG)
        assert state(one) == state(two) == (("2", "3"), {"stable": 2})
        # A worker that starts now, and one that only later hears of all of it.
        assert one.siblings is not None
        assert state(await worker(tmp_path, 0)) == state(one)
        await two.configure({"m": {"policy": "specific:4", "labels": {}}})
        assert state(one) == state(two) == (("4",), {})
        await asyncio.gather(one.configure(CONFIG), two.configure(CONFIG), one.configure(CONFIG))
        assert state(one) == state(two) == (("2", "3"), {"stable": 2})
        await one.configure({})

    between_two(test, tmp_path)


def test_a_load_takes_a_configuration_back_and_neither_is_missed(tmp_path: Path) -> None:
    async def test(one: Repository, two: Repository) -> None:
        built: list[Repository] = []
        for each in (one, two):
            each.build = lambda source, each=each: built.append(each) or Versioned()  # type: ignore[assignment,func-returns-value,misc]
        await one.configure(CONFIG)
        await one.load("m")
        assert built == [one, two]
        assert state(one) == state(two) == (("1",), {})
        # Two orders before the other one looks: it carries out both.
        built.clear()
        await asyncio.gather(one.load("m"), one.configure(CONFIG))
        assert sorted(map(id, built)) == sorted(map(id, (one, two)))
        assert state(one) == state(two)
        one.unload("m")
        await one.settled("m")
        assert two.entries["m"].model is None
        with pytest.raises(LoadFailed, match="m is not loaded"):
            await one.configure(CONFIG)

    between_two(test, tmp_path)


def test_a_worker_that_cannot_follow_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VERSIONS_WAIT_S", 0.1)

    async def test(one: Repository, two: Repository) -> None:
        with pytest.raises(LoadFailed, match=r"another worker could not follow: .*version 3 of m"):
            await one.configure(CONFIG)
        assert state(two) == (("2",), {"stable": 2})
        await one.configure({"m": {"policy": "specific:2", "labels": {}}})
        assert state(one) == state(two) == (("2",), {})

    between_two(test, tmp_path, Versioned(broken="3"))
