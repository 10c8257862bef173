"""Options every part of the suite shares."""

import signal
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


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


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist writes the groups into the names of the tests
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Several processes (`pytest -n 2 --dist loadgroup`): a file stays in one process, and so does
    all of `e2e`, whose pipelines and READMEs use the ports users use. That is also the longest
    group by far, so it begins first.
    """
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        group = folder if folder == "e2e" else item.path.relative_to(TESTS).as_posix()
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: TESTS / "e2e" not in item.path.parents)
