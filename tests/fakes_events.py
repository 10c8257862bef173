"""Notification bodies of every producer, as they were seen or documented; builders for the rows."""

import json
from typing import Any

KEY = "this im + age blah.txt"
AWS_KEY = "this+im+%2B+age+blah.txt"


def aws_record(key: str = AWS_KEY, **changes: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-01-02T03:04:05.678Z",
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "AIDAJDPLRKLG7UEXAMPLE"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {"x-amz-request-id": "REQ", "x-amz-id-2": "HOST"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "cfg",
            "bucket": {"name": "mnist", "arn": "arn:aws:s3:::mnist"},
            "object": {"key": key, "size": 324, "eTag": "ebed", "sequencer": "0055AED6DCD90281E5"},
        },
    }
    record.update(changes)
    return record


def records(*items: dict[str, Any]) -> dict[str, Any]:
    return {"Records": list(items) or [aws_record()]}


def sns(message: Any, **changes: Any) -> dict[str, Any]:
    return {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": "arn:aws:sns:us-west-2:123456789012:MyTopic",
        "Subject": "Amazon S3 Notification",
        "Message": message if isinstance(message, str) else json.dumps(message),
        "Timestamp": "2026-01-02T03:04:05.678Z",
        "SignatureVersion": "1",
        "Signature": "x",
        "SigningCertURL": "https://sns.us-west-2.amazonaws.com/cert.pem",
        **changes,
    }


def minio(key: str = "a%2Fb%3Ac.log", name: str = "s3:ObjectCreated:Put") -> dict[str, Any]:
    record = aws_record(
        key,
        eventSource="minio:s3",
        awsRegion="",
        eventName=name,
        responseElements={"x-amz-request-id": "17", "x-minio-deployment-id": "d"},
    )
    return {"EventName": name, "Key": "mnist/a/b:c.log", "Records": [record]}


def ceph(key: str = "a+b %41.png", name: str = "ObjectCreated:Put") -> dict[str, Any]:
    return records(
        aws_record(key, eventSource="ceph:s3", awsRegion="zg", eventName=name, eventId="1.2.3")
    )


def event_bridge(key: str = "a+b:%41.png", **changes: Any) -> dict[str, Any]:
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "account": "111122223333",
        "time": "2026-01-02T03:04:05Z",
        "region": "ca-central-1",
        "resources": ["arn:aws:s3:::mnist"],
        "detail": {
            "version": "0",
            "bucket": {"name": "mnist"},
            "object": {
                "key": key,
                "size": 5,
                "etag": "b1946ac9",
                "sequencer": "00617F08299329D189",
            },
            "request-id": "N4N7GDK58NMKJ12R",
            "reason": "PutObject",
        },
        **changes,
    }


TEST_EVENT = {
    "Service": "Amazon S3",
    "Event": "s3:TestEvent",
    "Time": "2026-01-02T03:04:05.678Z",
    "Bucket": "mnist",
    "RequestId": "R",
    "HostId": "H",
}


def seaweed_entry(name: str, *, fid: int = 2, tags: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "chunks": [
            {
                "size": 100,
                "modified_ts_ns": 1795252160030182109,
                "e_tag": "rtVj7K+0vMVlTFl6QhVHsg==",
                "fid": {"volume_id": 4, "file_key": fid, "cookie": 3169884255},
            }
        ],
        "attributes": {
            "file_size": 100,
            "mtime": 1795252160,
            "mime": "text/x",
            "md5": "rtVj7K+0vMVlTFl6QhVHsg==",
        },
        "extended": {
            "Seaweed-X-Amz-ETag": "YWVkNTYzZWNhZmI0YmNjNTY1NGM1OTdhNDIxNTQ3YjI=",
            **(tags or {}),
        },
    }


def seaweed(
    path: str = "mnist/a/b:c +%41.log", kind: str = "create", **message: Any
) -> dict[str, Any]:
    name = path.rpartition("/")[2]
    return {
        "event_type": kind,
        "key": f"/buckets/{path}",
        "message": message
        or {"new_entry": seaweed_entry(name), "new_parent_path": "/buckets/mnist"},
    }


SEAWEED_DIRECTORY = {
    "event_type": "create",
    "key": "/buckets/mnist/a",
    "message": {
        "new_entry": {
            "name": "a",
            "is_directory": True,
            "attributes": {"mtime": 1795252160, "ctime": -62135596800, "mtime_ns": 30389783},
        },
        "new_parent_path": "/buckets/mnist",
    },
}
