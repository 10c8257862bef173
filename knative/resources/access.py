"""Credentials and settings of a fetch, from what the input says about storage.

KServe's controller looks secrets up in the cluster when a pod starts. A compiler has only its
input: the
ServiceAccount and Secret documents in it, and names in annotations. Secret values are never copied,
only referred to (spec/kserve_sdk 4.5).
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from knative import keys
from knative.api.problems import Path
from knative.api.resource import Resource
from knative.resources import container

if TYPE_CHECKING:
    from knative.compiler import Context

JSON = Any
Object = dict[str, JSON]

_ACCOUNT: Path = ("spec", "predictor", "serviceAccountName")
_SECRETS_DIR = "/var/secrets"
_GCP_KEY = "gcloud-application-credentials.json"
_S3_SETTINGS = {
    "s3-usehttps": "S3_USE_HTTPS",
    "s3-region": "AWS_DEFAULT_REGION",
    "s3-verifyssl": "S3_VERIFY_SSL",
    "s3-usevirtualbucket": "S3_USER_VIRTUAL_BUCKET",
    "s3-useaccelerate": "S3_USE_ACCELERATE",
    "s3-useanoncredential": "awsAnonymousCredential",
    "s3-cabundle": "AWS_CA_BUNDLE",
    "s3-cabundle-configmap": "AWS_CA_BUNDLE_CONFIGMAP",
}
"""Annotation (after serving.kserve.io/) -> environment variable of the fetcher."""
_CA_DIRECTORY = "/etc/ssl/custom-certs"
_OLD = {
    "awsAccessKeyID": "AWS_ACCESS_KEY_ID",
    "awsSecretAccessKey": "AWS_SECRET_ACCESS_KEY",
    "AZ_CLIENT_ID": "AZURE_CLIENT_ID",
    "AZ_CLIENT_SECRET": "AZURE_CLIENT_SECRET",
    "AZ_TENANT_ID": "AZURE_TENANT_ID",
    "AZ_SUBSCRIPTION_ID": "AZURE_SUBSCRIPTION_ID",
}
"""Older keys of secrets (the first two are KServe's own default) -> the variable."""
_PLAIN = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_TENANT_ID",
    "AZURE_SUBSCRIPTION_ID",
    "AZURE_ACCESS_TOKEN",
    "AZURE_STORAGE_ACCESS_KEY",
    "HF_TOKEN",
    "MODELSCOPE_API_TOKEN",
)
"""Secret keys that become the environment variable of the same name."""


@dataclass(slots=True)
class Credentials:
    """What the fetching container gets besides its arguments."""

    env: list[Object] = field(default_factory=list)
    env_from: list[Object] = field(default_factory=list)
    mounts: list[Object] = field(default_factory=list)
    volumes: list[Object] = field(default_factory=list)


def collect(
    resource: Resource, context: "Context", account: str, path: Path = _ACCOUNT
) -> Credentials:
    """Credentials for a component that runs as ServiceAccount `account`, which `path` names."""
    found = Credentials()
    settings = _settings(resource.annotations)
    named = resource.annotations.get(keys.KSERVE_STORAGE_SECRET)
    if named:
        secret = context.find_sound("Secret", resource.namespace, named)
        if secret is None:
            found.env_from.append({"secretRef": {"name": named}})
        else:
            settings = {**_of_secret(secret, found), **settings}
    elif account:
        settings = {**_of_account(resource, context, account, found, path), **settings}
    found.env[:0] = container.env(**settings)
    _mount_bundle(settings, found)
    return found


def _mount_bundle(settings: Mapping[str, str], found: Credentials) -> None:
    """The ConfigMap with the roots, as KServe's webhook mounts it."""
    name = settings.get("AWS_CA_BUNDLE_CONFIGMAP")
    if not name:
        return
    bundle = settings.get("AWS_CA_BUNDLE", "")
    directory = str(PurePosixPath(bundle).parent) if bundle.startswith("/") else _CA_DIRECTORY
    found.env += container.env(
        CA_BUNDLE_CONFIGMAP_NAME=name, CA_BUNDLE_VOLUME_MOUNT_POINT=directory
    )
    found.volumes.append({"name": "cabundle-cert", "configMap": {"name": name}})
    found.mounts.append({"name": "cabundle-cert", "mountPath": directory, "readOnly": True})


def _of_account(
    resource: Resource, context: "Context", account: str, found: Credentials, path: Path
) -> dict[str, str]:
    service_account = context.find_sound("ServiceAccount", resource.namespace, account)
    if service_account is None:
        context.report(resource).note(
            path,
            f"the secrets of {account} are not in the input, so the fetcher gets none of them; add"
            f" the ServiceAccount and its Secret, or name it in {keys.KSERVE_STORAGE_SECRET}",
        )
        return {}
    settings = _settings(service_account.annotations)
    for reference in service_account.data.get("secrets") or []:
        name = reference.get("name") if isinstance(reference, dict) else None
        secret = context.find_sound("Secret", resource.namespace, name) if name else None
        if secret is not None:
            settings |= _of_secret(secret, found)
        elif name:
            context.report(resource).warning(
                ("spec", "predictor", "serviceAccountName"),
                f"Secret {name} of ServiceAccount {account} is not in the input; the fetcher"
                " does not get it",
            )
    return settings


def _of_secret(secret: Resource, found: Credentials) -> dict[str, str]:
    """Add what the secret's keys stand for; returns the S3 settings in its annotations and data."""
    values = _values(secret)
    for key in _PLAIN:
        if key in values:
            found.env.append(_from_secret(key, secret.name, key))
    for key, name in _OLD.items():
        if key in values and name not in values:
            found.env.append(_from_secret(name, secret.name, key))
    if _GCP_KEY in values:
        _mount(found, "user-gcp-sa", secret.name, _SECRETS_DIR)
        path = f"{_SECRETS_DIR}/{_GCP_KEY}"
        found.env += container.env(GOOGLE_APPLICATION_CREDENTIALS=path)
    if "HDFS_NAMENODE" in values:
        _mount(found, "hdfs-credentials", secret.name, f"{_SECRETS_DIR}/kserve-hdfscreds")
    if "headers" in values and values.get("https-host"):
        found.env.append(_from_secret(f"{values['https-host']}-headers", secret.name, "headers"))
    settings = {
        name: values[name]
        for name in ("S3_ENDPOINT", "AWS_ENDPOINT_URL", *_S3_SETTINGS.values())
        if values.get(name)
    }
    return {**settings, **_settings(secret.annotations)}


def _values(secret: Resource) -> dict[str, str]:
    """The secret's keys with their text (empty where it is not text). For looking, not for
    copying."""
    values = dict(_decoded(secret.data.get("data") or {}))
    values |= secret.data.get("stringData") or {}
    return values


def _decoded(data: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key, value in data.items():
        try:
            yield key, base64.b64decode(value, validate=True).decode()
        except ValueError:  # not base64 (reported by the check) or not text
            yield key, ""


def _from_secret(variable: str, secret: str, key: str) -> Object:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _mount(found: Credentials, volume: str, secret: str, path: str) -> None:
    """Read-only said out loud: Knative does not fill it in for init containers, yet insists on
    it."""
    found.volumes.append({"name": volume, "secret": {"secretName": secret}})
    found.mounts.append({"name": volume, "mountPath": path, "readOnly": True})


def _settings(annotations: Mapping[str, str]) -> dict[str, str]:
    """S3 settings in annotations as environment variables; empty values are unset."""
    settings: dict[str, str] = {}
    endpoint = annotations.get(f"{keys.KSERVE_S3_PREFIX}endpoint")
    if endpoint:
        scheme, sign, host = endpoint.partition("://")
        if not sign:
            secure = annotations.get(f"{keys.KSERVE_S3_PREFIX}usehttps", "1") != "0"
            scheme, host = ("https" if secure else "http"), endpoint
        settings["S3_ENDPOINT"] = host
        settings["AWS_ENDPOINT_URL"] = f"{scheme}://{host}"
    for suffix, name in _S3_SETTINGS.items():
        value = annotations.get(f"serving.kserve.io/{suffix}")
        if value:
            settings[name] = value
    return settings
