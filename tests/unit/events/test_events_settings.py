"""What the programs make of their environment."""

import re
from collections.abc import Iterator, Mapping

import pytest

from events import __main__ as programs
from events.settings import AdapterSettings, SinkSettings, SqsSettings


@pytest.mark.parametrize(
    ("url", "more", "endpoint", "region"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/1/q", {}, None, "eu-west-1"),
        ("https://sqs.eu-west-1.amazonaws.com/1/q", {"AWS_REGION": "us-east-1"}, None, "eu-west-1"),
        ("https://eu-west-1.queue.amazonaws.com/1/q", {}, None, "eu-west-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", {}, None, "cn-north-1"),
        ("https://vpce-1.sqs.us-east-2.vpce.amazonaws.com/1/q", {"AWS_REGION": "r"}, None, "r"),
        ("http://127.0.0.1:9324/1/q", {}, "http://127.0.0.1:9324", "us-east-1"),
        ("http://moto:5000/1/q", {"AWS_ENDPOINT_URL_SQS": "http://a"}, "http://a", "us-east-1"),
        ("http://moto:5000/1/q", {"AWS_DEFAULT_REGION": "r"}, "http://moto:5000", "r"),
    ],
)
def test_a_queues_url_says_where_its_api_is(
    url: str, more: dict[str, str], endpoint: str | None, region: str
) -> None:
    settings = SqsSettings.from_env({"K_SINK": "http://b", "TURNOUT_SQS_QUEUE_URL": url, **more})
    assert (settings.endpoint_url, settings.region) == (endpoint, region)


class Watched(Mapping[str, str]):
    """An environment that remembers what was asked for."""

    def __init__(self, **values: str) -> None:
        self.values_ = values
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return self.values_[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


def test_help_names_the_variables_that_are_read() -> None:
    queue = {"TURNOUT_SQS_QUEUE_URL": "http://q/1/q"}
    for name, kind, given in (
        ("adapter", AdapterSettings, {}),
        ("sqs", SqsSettings, queue),
        ("sink", SinkSettings, {"SINK_SPEC": "{}"}),
    ):
        environ = Watched(K_SINK="http://b", **given)
        kind.from_env(environ)  # type: ignore[attr-defined]
        named = set(re.findall(r"\b(?:TURNOUT|K|SINK)_[A-Z_]+|\bPORT\b", programs._HELP[name]))
        assert named <= environ.asked
        read = {one for one in environ.asked if one.startswith(("TURNOUT_", "SINK_"))}
        assert read - {"TURNOUT_THREADS"} <= named
