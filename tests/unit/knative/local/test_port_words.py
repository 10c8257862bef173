"""Fixed ports in words."""

import pytest

from knative.local.port_words import replace_in_env, replace_port


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--port", "8080"], ["--port", "20001"]),
        (["--http_port=8080"], ["--http_port=20001"]),
        (["--rest-api-port=8080"], ["--rest-api-port=20001"]),
        (["-p", "8080"], ["-p", "20001"]),
        (["0.0.0.0:8080"], ["0.0.0.0:20001"]),
        (["--bind=[::]:8080"], ["--bind=[::]:20001"]),
        ([":8080"], [":20001"]),
        (["--limit", "8080"], ["--limit", "8080"]),
        (["--limit=8080"], ["--limit=8080"]),
        (["8080"], ["8080"]),
        (["--port=18080"], ["--port=18080"]),
        (["http://other:8080/x"], ["http://other:8080/x"]),
        (["--export", "8080x"], ["--export", "8080x"]),
    ],
)
def test_words(words: list[str], expected: list[str]) -> None:
    assert replace_port(words, 8080, 20001) == expected


def test_variables() -> None:
    env = {"HTTP_PORT": "8080", "SIZE": "8080", "PORT_RANGE": "1-9", "port": "8080"}
    assert replace_in_env(env, 8080, 1) == {
        "HTTP_PORT": "1",
        "SIZE": "8080",
        "PORT_RANGE": "1-9",
        "port": "1",
    }
