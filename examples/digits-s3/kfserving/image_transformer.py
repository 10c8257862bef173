"""The same job in the style of KFServing's MinIO sample: user code that reads the notification
itself and talks to S3 with its own client. Kept to show that such code runs; `trigger.yaml` is the
better way (it also deduplicates, retries, files failures and needs no S3 code).

What the sample got wrong is right here: nothing is kept on the shared object between calls, every
record is looked at, keys are decoded, multipart uploads and copies count, events that are not ours
are answered instead of failing. The event may come bare, under `data`, or as a CloudEvent.
"""

import os
from typing import Any
from urllib.parse import unquote_plus

import boto3

EVENT_TYPE = "s3:ObjectCreated:"


class ImageTransformer:
    """preprocess downloads, predict counts bytes (a model's place), postprocess files the
    object."""

    def load(self) -> bool:
        self._s3 = boto3.client("s3", endpoint_url=os.environ.get("AWS_ENDPOINT_URL"))
        self._target = os.environ.get("TARGET_BUCKET", "digits")
        return True

    def preprocess(self, inputs: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        event = inputs.get("data", inputs)
        found = []
        for record in event.get("Records", []):
            event_type = "s3:" + record["eventName"].removeprefix("s3:")
            if not event_type.startswith(EVENT_TYPE):  # s3:ObjectCreated:Put and its siblings
                continue
            bucket = record["s3"]["bucket"]["name"]
            key = unquote_plus(record["s3"]["object"]["key"])
            body = self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            found.append({"bucket": bucket, "key": key, "body": body})
        return {"instances": found}

    def predict(self, payload: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        return {
            "predictions": [
                {"classes": len(instance["body"]) % 10, "from": instance}
                for instance in payload["instances"]
            ]
        }

    def postprocess(self, response: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        answers = []
        for prediction in response["predictions"]:
            source = prediction["from"]
            key = f"digit-{prediction['classes']}/{source['key']}"
            self._s3.copy_object(
                Bucket=self._target,
                Key=key,
                CopySource={"Bucket": source["bucket"], "Key": source["key"]},
            )
            answers.append({"classes": prediction["classes"], "filed": key})
        return {"predictions": answers}
