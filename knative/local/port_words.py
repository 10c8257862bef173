"""A container's fixed port in its words, replaced by the port it really has here. Pure.

Many servers are told their port by an argument (`--http_port=8080`) instead of reading `PORT`. In
a pod of its own that works; here several pods share one network, so each needs another port. Only
words that clearly mean a port are touched: an option with `port` in its name (or `-p`), or an
address.
"""

import re
from collections.abc import Mapping, Sequence

_OPTION = re.compile(r"--?[\w.-]*port[\w.-]*", re.IGNORECASE)
_LOOPBACK = re.compile(r"(?<![\w.-])(localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1?\]):(\d{2,5})(?!\d)")


def replace_port(words: Sequence[str], declared: int, actual: int) -> list[str]:
    """`["--port", "8080", "-b", "0.0.0.0:8080"]` -> the same with the actual port."""
    result: list[str] = []
    for index, word in enumerate(words):
        before = words[index - 1] if index else ""
        result.append(_replace(word, before, str(declared), str(actual)))
    return result


def replace_in_env(env: Mapping[str, str], declared: int, actual: int) -> dict[str, str]:
    """Variables whose name says that they are ports, and whose value is the declared one."""
    return {
        name: str(actual) if value == str(declared) and "PORT" in name.upper() else value
        for name, value in env.items()
    }


def declared_ports(text: str) -> list[int]:
    """The ports of a `turnout.dev/pod-ports` annotation. Raises ValueError."""
    ports = [int(part) for part in text.split(",") if part.strip()]
    if wrong := [port for port in ports if not 0 < port < 65536]:
        raise ValueError(f"{wrong[0]} is no port")
    return ports


def replace_addresses(text: str, ports: Mapping[int, int]) -> str:
    """`http://localhost:9000/x` -> the same with the actual port, wherever it stands in a text."""

    def actual(match: re.Match[str]) -> str:
        port = int(match[2])
        return f"{match[1]}:{ports.get(port, port)}"

    return _LOOPBACK.sub(actual, text) if ports else text


def _replace(word: str, before: str, declared: str, actual: str) -> str:
    if word == declared:
        is_port = before == "-p" or _OPTION.fullmatch(before) is not None
        return actual if is_port else word
    option, equals, value = word.partition("=")
    if equals and value == declared and _OPTION.fullmatch(option):
        return f"{option}={actual}"
    if re.search(rf"(?:^|=)(?:[\w.*-]*|\[[\da-fA-F:]*\]):{declared}$", word):
        return word[: -len(declared)] + actual
    return word
