"""The SQS poller against SQS's API as moto's server speaks it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import boto3
import pytest

from tests import fakes_events as shapes
from tests.contract.test_events import ROOT, Upstream, running
from tests.seaweed import free_ports

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "k",
    "AWS_SECRET_ACCESS_KEY": "s",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_ports(1)[0]
    log = (tmp_path_factory.mktemp("moto") / "log").open("w")
    code = "import sys; from moto.server import main; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, "-H", "127.0.0.1", "-p", str(port)],
        stdout=log,
        stderr=log,
        env={"PATH": os.environ["PATH"], **CREDENTIALS},
        cwd=ROOT,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _is_up(url), 60, "moto")
        yield url
    finally:
        process.terminate()
        process.wait(10)
        log.close()


def _is_up(url: str) -> bool:
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(url + "/moto-api/", timeout=2).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


def wait_for(condition: Callable[[], Any], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"did not happen: {what}"
        time.sleep(0.05)


class Queue:
    """A queue and its client."""

    def __init__(self, endpoint: str, name: str, **attributes: str) -> None:
        session = boto3.session.Session(
            aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1"
        )
        self.client = session.client("sqs", endpoint_url=endpoint)
        self.url = self.client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]

    def send(self, body: Any) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.client.send_message(QueueUrl=self.url, MessageBody=text)

    def left(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        return sum(int(found["Attributes"][name]) for name in names)


def environ(endpoint: str, queue: Queue, sink: Upstream, **more: str) -> dict[str, str]:
    return {
        **CREDENTIALS,
        "AWS_ENDPOINT_URL": endpoint,
        "TURNOUT_SQS_QUEUE_URL": queue.url,
        "K_SINK": sink.url,
        "TURNOUT_SQS_WAIT_SECONDS": "1",
        **more,
    }


def test_messages_are_delivered_and_deleted(endpoint: str, tmp_path: Path) -> None:
    queue = Queue(endpoint, "deliver")
    with Upstream() as sink, running(tmp_path, "sqs", **environ(endpoint, queue, sink)) as program:
        for index in range(25):
            queue.send(shapes.records(shapes.aws_record(f"in/{index}.png")))
        queue.send(shapes.sns(shapes.records()))
        queue.send(shapes.TEST_EVENT)
        wait_for(lambda: len(sink.calls) == 26 and queue.left() == 0, 30, "26 events, empty queue")
        subjects = {call[1]["ce-subject"] for call in sink.calls}
        assert {f"in/{index}.png" for index in range(25)} < subjects
        assert b"turnout_adapter_events_total" in program.request("GET", "/metrics")[2]
        program.process.terminate()
        assert program.process.wait(15) == 0


def test_a_message_stays_until_the_sink_takes_it(endpoint: str, tmp_path: Path) -> None:
    queue = Queue(endpoint, "stubborn")
    busy = (503, {}, b"")
    with (
        Upstream(busy, busy, (202, {}, b"")) as sink,
        running(tmp_path, "sqs", **environ(endpoint, queue, sink)),
    ):
        queue.send(shapes.records())
        # A message that becomes visible between moto's two counts is in neither.
        wait_for(lambda: len(sink.calls) == 3 and queue.left() == 0, 40, "the third attempt")
        assert len(sink.calls) == 3
        assert len({call[1]["ce-id"] for call in sink.calls}) == 1


def test_visibility_is_extended_while_the_sink_works(endpoint: str, tmp_path: Path) -> None:
    queue = Queue(endpoint, "slow")
    more = {"TURNOUT_SQS_VISIBILITY_SECONDS": "5"}
    with (
        Upstream() as sink,
        running(tmp_path, "sqs", **environ(endpoint, queue, sink, **more)),
    ):
        sink.gate.clear()
        queue.send(shapes.records())
        wait_for(lambda: len(sink.calls) == 1, 20, "the first delivery")
        time.sleep(7)  # longer than the visibility timeout: without extension it would come again
        assert len(sink.calls) == 1
        sink.gate.set()
        wait_for(lambda: queue.left() == 0, 20, "deleted")
        assert len(sink.calls) == 1


def test_poison_is_set_aside_and_does_not_stop_the_rest(endpoint: str, tmp_path: Path) -> None:
    queue = Queue(endpoint, "poison")
    more = {"TURNOUT_SQS_MAX_RECEIVES": "2"}
    with (
        Upstream() as sink,
        running(tmp_path, "sqs", **environ(endpoint, queue, sink, **more)) as program,
    ):
        queue.send("not json")
        queue.send(shapes.records())
        wait_for(lambda: len(sink.calls) == 1, 20, "the good message")
        wait_for(
            lambda: any("set aside" in line["message"] for line in program.lines()), 20, "set aside"
        )
        assert queue.left() == 1


def test_poison_goes_to_the_queues_own_dead_letters(endpoint: str, tmp_path: Path) -> None:
    dead = Queue(endpoint, "dead")
    arn = dead.client.get_queue_attributes(QueueUrl=dead.url, AttributeNames=["QueueArn"])
    policy = {"deadLetterTargetArn": arn["Attributes"]["QueueArn"], "maxReceiveCount": "2"}
    queue = Queue(endpoint, "redriven", RedrivePolicy=json.dumps(policy))
    with Upstream() as sink, running(tmp_path, "sqs", **environ(endpoint, queue, sink)):
        queue.send("not json")
        wait_for(lambda: dead.left() == 1, 30, "the dead letter queue has it")
        assert queue.left() == 0


def test_what_an_s3_server_says_itself_to_queues_and_topics(endpoint: str, tmp_path: Path) -> None:
    """moto's S3 notifies a queue, and a topic that the queue has subscribed to; nothing but the
    queue's URL and the keys is set."""
    queue = Queue(endpoint, "told")
    session = boto3.session.Session(
        aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1"
    )
    s3, sns = (session.client(name, endpoint_url=endpoint) for name in ("s3", "sns"))
    wanted = ["QueueArn"]
    found = queue.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=wanted)
    arn = found["Attributes"]["QueueArn"]
    topic = sns.create_topic(Name="told")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    events = {"Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
    for bucket, told in (
        ("queued", {"QueueConfigurations": [{"QueueArn": arn, **events}]}),
        ("published", {"TopicConfigurations": [{"TopicArn": topic, **events}]}),
    ):
        s3.create_bucket(Bucket=bucket)
        s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=told)
    keys = [shapes.KEY, "a/b:c.log", "ü/€😀.png", "%41"]
    secret = {name: CREDENTIALS[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    more = {"TURNOUT_SQS_QUEUE_URL": queue.url, "TURNOUT_SQS_WAIT_SECONDS": "1", **secret}
    with Upstream() as sink, running(tmp_path, "sqs", K_SINK=sink.url, **more) as program:
        for bucket in ("queued", "published"):
            for key in keys:
                s3.put_object(Bucket=bucket, Key=key, Body=b"x")
            s3.delete_object(Bucket=bucket, Key="%41")
        wait_for(lambda: len(sink.calls) >= 10 and queue.left() == 0, 40, "ten events")
        got = {
            tuple(unquote(call[1][f"ce-{name}"]) for name in ("source", "type", "subject"))
            for call in sink.calls
        }
        for bucket in ("queued", "published"):
            source = f"aws:s3.us-east-1.{bucket}"
            for key in keys:
                assert (source, "com.amazonaws.s3.ObjectCreated:Put", key) in got
            assert (source, "com.amazonaws.s3.ObjectRemoved:Delete", "%41") in got
        assert not [line for line in program.lines() if line["level"] != "INFO"]
