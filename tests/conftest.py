"""Options every part of the suite shares."""

import signal

import pytest


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
