"""Asking a registry for an image, with a scripted registry."""

from collections.abc import Mapping

import pytest

from knative.cluster import registry


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("nginx", ("registry-1.docker.io", "library/nginx", "latest")),
        ("kserve/x:1", ("registry-1.docker.io", "kserve/x", "1")),
        ("docker.io/a/b", ("registry-1.docker.io", "a/b", "latest")),
        ("ghcr.io/a/b:1", ("ghcr.io", "a/b", "1")),
        ("localhost:5000/b", ("localhost:5000", "b", "latest")),
        ("r.io/a@sha256:00", ("r.io", "a", "sha256:00")),
        ("r.io/a:1@sha256:00", ("r.io", "a", "sha256:00")),
    ],
)
def test_references(image: str, expected: tuple[str, str, str]) -> None:
    found = registry.parse(image)
    assert (found.registry, found.name, found.version) == expected


class Script:
    """Answers in order; remembers what was asked."""

    def __init__(self, *answers: registry.Answer | OSError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, str]] = []

    def __call__(self, method: str, url: str, headers: Mapping[str, str]) -> registry.Answer:
        self.asked.append((method, url, headers.get("Authorization", "")))
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer


CHALLENGE = {"Www-Authenticate": 'Bearer realm="https://auth.r.io/token",service="r.io",scope="s"'}


@pytest.mark.parametrize(
    ("answers", "there", "words"),
    [
        ([(200, {}, b"")], True, "is there"),
        ([(404, {}, b"")], False, "r.io has no a/b 1"),
        ([(403, {}, b"")], None, "wants credentials"),
        ([(401, {}, b"")], None, "wants credentials"),
        ([(401, {"WWW-Authenticate": 'Basic realm="x"'}, b"")], None, "wants credentials"),
        ([(500, {}, b"")], None, "answered 500"),
        ([OSError("no route")], None, "could not be asked: no route"),
        ([(401, CHALLENGE, b""), (200, {}, b"not json")], None, "could not be asked"),
        ([(401, CHALLENGE, b""), (200, {}, b'{"token": "t"}'), (200, {}, b"")], True, "is there"),
        ([(401, CHALLENGE, b""), (200, {}, b'{"token": "t"}'), (404, {}, b"")], False, "has no"),
    ],
)
def test_what_a_registry_says(
    answers: list[registry.Answer | OSError], there: bool | None, words: str
) -> None:
    script = Script(*answers)
    found, said = registry.look("r.io/a/b:1", script)
    assert found is there
    assert words in said
    assert script.answers == []


def test_the_anonymous_token_is_used_once_and_only_over_tls() -> None:
    script = Script((401, CHALLENGE, b""), (200, {}, b'{"token": "t"}'), (200, {}, b""))
    registry.look("r.io/a/b:1", script)
    assert script.asked == [
        ("HEAD", "https://r.io/v2/a/b/manifests/1", ""),
        ("GET", "https://auth.r.io/token?service=r.io&scope=s", ""),
        ("HEAD", "https://r.io/v2/a/b/manifests/1", "Bearer t"),
    ]
    plain = {"WWW-Authenticate": 'Bearer realm="http://evil.example/token"'}
    script = Script((401, plain, b""))
    assert registry.look("r.io/a/b:1", script)[0] is None
