"""What the programs make of their environment."""

import pytest

from events.settings import SqsSettings


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
