"""Options every part of the suite shares."""

import signal
from pathlib import Path
from typing import Any

import pytest

E2E = Path(__file__).parent / "e2e"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` rewrites the expected files under tests/golden; review the diff."""
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite tests/golden from what is compiled now",
    )


def pytest_configure() -> None:
    """A suite started in the background (`nohup`, some CI runners) inherits an ignored SIGINT, and
    so would every process it starts; tests of Ctrl-C need it to work."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`e2e` first: it takes longest, and in one process (see below)."""
    items.sort(key=lambda item: E2E not in item.path.parents)


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Several processes (`pytest -n 2`): a file stays in one, and so does all of `e2e`, whose
    pipelines and READMEs use the ports users use. (`--dist loadgroup` takes marks for that, but
    what it writes into the tests' names is not read any more since pytest 9.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return E2E.name if E2E in (config.rootpath / file).parents else file

    config.option.loadscopereorder = False  # the order above
    return ByFile(config, log)
