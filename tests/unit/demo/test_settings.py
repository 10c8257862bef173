"""What the demo takes from the environment, and what it keeps from its children."""

import pytest

from knative.demo.settings import Settings


@pytest.mark.parametrize(
    ("environ", "colour"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_is_a_wish_that_can_be_refused(environ: dict[str, str], colour: bool) -> None:
    assert Settings.from_env(environ).colour is colour


def test_children_never_see_a_developers_credentials_or_proxies() -> None:
    environ = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "AWS_SECRET_ACCESS_KEY": "real",
        "AWS_PROFILE": "prod",
        "HTTP_PROXY": "http://proxy",
        "PYTHONPATH": "/elsewhere",
    }
    settings = Settings.from_env(environ)
    assert settings.environ == {"PATH": "/bin", "HOME": "/home/me"}
    assert "real" not in repr(settings)
