"""KServe's storage spec: `STORAGE_CONFIG` (+ `STORAGE_OVERRIDE_CONFIG`) → the usual variables.

The webhook puts one entry of the Secret `storage-config` into `STORAGE_CONFIG`, a JSON object with
a `type` (s3, hdfs, webhdfs) and credentials, and rewrites the URI to
`<scheme-placeholder>://path`, to which the bucket belongs. No I/O but the HDFS key files, which
that library wants as files.
"""

import base64
import json
import os
import tempfile
from collections.abc import Mapping

from .uri import PLACEHOLDER

_S3 = {
    "access_key_id": "AWS_ACCESS_KEY_ID",
    "secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "endpoint_url": "AWS_ENDPOINT_URL",
    "region": "AWS_DEFAULT_REGION",
    "ca_bundle": "AWS_CA_BUNDLE",
    "verify_ssl": "S3_VERIFY_SSL",
    "anonymous": "awsAnonymousCredential",
}
_FILES = ("TLS_CERT", "TLS_KEY", "TLS_CA", "KERBEROS_KEYTAB")


def overlay(
    environ: Mapping[str, str], problems: list[str]
) -> tuple[dict[str, str], tuple[tuple[str, str], ...]]:
    """(environment with the spec's values, URI prefixes to replace). Problems are appended."""
    env = dict(environ)
    spec: dict[str, object] = {}
    for name in ("STORAGE_CONFIG", "STORAGE_OVERRIDE_CONFIG"):
        text = env.get(name, "").strip()
        if not text:
            continue
        try:
            data = json.loads(text)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            problems.append(f"{name}: expected a JSON object (its value is secret)")
            return env, ()
        spec |= data
    if not spec:
        return env, ()
    kind = str(spec.get("type", ""))
    if kind == "s3":
        env |= {_S3[key]: _text(value) for key, value in spec.items() if key in _S3}
        bucket = str(spec.get("bucket") or "")  # not needed when the URI names one
        return env, ((PLACEHOLDER, f"s3://{bucket}/"),) if bucket else ()
    if kind in ("hdfs", "webhdfs"):
        for key, value in spec.items():
            if key.isupper():
                try:
                    env[key] = _file(key, _text(value)) if key in _FILES else _text(value)
                except ValueError:
                    problems.append(f"STORAGE_CONFIG: {key}: expected base64 (its value is secret)")
        return env, ((PLACEHOLDER, f"{kind}://"),)
    if kind:
        problems.append(f"STORAGE_CONFIG: type {kind!r}: expected s3, hdfs or webhdfs")
    return env, ()


def _text(value: object) -> str:
    if isinstance(value, dict):
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _file(name: str, encoded: str) -> str:
    """Key material into a file only we can read; its path."""
    directory = tempfile.mkdtemp(prefix="turnout-storage-spec-")
    path = os.path.join(directory, name)
    content = base64.b64decode("".join(encoded.split()), validate=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.write(content)
    return path
