"""Options every part of the suite shares."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` rewrites the expected files under tests/golden; review the diff."""
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite tests/golden from what is compiled now",
    )
