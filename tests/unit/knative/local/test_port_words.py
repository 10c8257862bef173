"""Fixed ports in words."""

import pytest

from knative.local.port_words import (
    declared_ports,
    replace_addresses,
    replace_in_env,
    replace_port,
)


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"serviceUrl":"http://localhost:9000/x"}', '{"serviceUrl":"http://localhost:20001/x"}'),
        ("127.0.0.1:9001", "127.0.0.1:20002"),
        ("localhost:9000,localhost:9001", "localhost:20001,localhost:20002"),
        ("localhost:90001", "localhost:90001"),
        ("localhost:8080", "localhost:8080"),
        ("http://notlocalhost:9000", "http://notlocalhost:9000"),
        ("http://a.localhost:9000", "http://a.localhost:9000"),
    ],
)
def test_addresses_of_the_pods_other_containers(text: str, expected: str) -> None:
    assert replace_addresses(text, {9000: 20001, 9001: 20002}) == expected


def test_ports_that_a_pod_declares() -> None:
    assert declared_ports("") == []
    assert declared_ports("9000, 9500") == [9000, 9500]
    for wrong in ("0", "65536", "x"):
        with pytest.raises(ValueError, match=r"is no port|invalid literal"):
            declared_ports(wrong)
