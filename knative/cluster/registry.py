"""Is an image there? Asks its registry as anybody, without credentials (OCI distribution API, pull
side).

A private registry answers 401 or 403: that says nothing about the cluster's pull secrets, so it is
a
remark and not a miss.
"""

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 10.0
"""One request; Knative's own tag resolution gives up after 10 s too."""

_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An image reference taken apart."""

    registry: str
    name: str
    version: str
    """Tag or digest."""


Answer = tuple[int, Mapping[str, str], bytes]
Fetch = Callable[[str, str, Mapping[str, str]], Answer]
"""(method, URL, headers) -> (status, headers, body); raises OSError."""


def parse(image: str) -> Reference:
    """`nginx`, `host:5000/a/b:tag`, `a/b@sha256:…` as docker reads them."""
    rest, _, digest = image.partition("@")
    head, slash, last = rest.rpartition("/")
    last, _, tag = last.partition(":")
    path = f"{head}{slash}{last}"
    first, slash, remainder = path.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry, name = first, remainder
    else:
        registry, name = "registry-1.docker.io", path if slash else f"library/{path}"
    if registry == "docker.io":
        registry = "registry-1.docker.io"
    return Reference(registry=registry, name=name, version=digest or tag or "latest")


def look(image: str, fetch: Fetch | None = None) -> tuple[bool | None, str]:
    """(there, why): True, False for "no such image", None when it cannot be said."""
    reference = parse(image)
    plain = reference.registry.partition(":")[0] in ("localhost", "127.0.0.1")
    url = (
        f"{'http' if plain else 'https'}://{reference.registry}/v2/{reference.name}"
        f"/manifests/{reference.version}"
    )
    send = fetch or _fetch
    headers = {"Accept": _ACCEPT}
    try:
        status, answered, _ = send("HEAD", url, headers)
        if status == 401:
            token = _token(answered, send)
            if token:
                status, _, _ = send("HEAD", url, {**headers, "Authorization": f"Bearer {token}"})
    except (OSError, ValueError) as error:
        return None, f"{reference.registry} could not be asked: {error}"
    if status == 200:
        return True, "is there"
    if status == 404:
        return False, f"{reference.registry} has no {reference.name} {reference.version}"
    if status in (401, 403):
        return None, f"{reference.registry} wants credentials; the cluster's pull secrets decide"
    return None, f"{reference.registry} answered {status}"


def _token(headers: Mapping[str, str], send: Fetch) -> str:
    """An anonymous token for the challenge of a 401; empty if there is none to be had."""
    challenge = next((v for k, v in headers.items() if k.lower() == "www-authenticate"), "")
    if not challenge.lower().startswith("bearer "):
        return ""
    fields = dict(_CHALLENGE.findall(challenge))
    realm = fields.pop("realm", "")
    if not realm.startswith(("https://", "http://localhost", "http://127.0.0.1")):
        return ""
    status, _, body = send("GET", f"{realm}?{urllib.parse.urlencode(fields)}", {})
    if status != 200:
        return ""
    parsed: Any = json.loads(body)
    return str(parsed.get("token") or parsed.get("access_token") or "")


def _fetch(method: str, url: str, headers: Mapping[str, str]) -> Answer:
    request = urllib.request.Request(url, method=method, headers=dict(headers))  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 (https)
            return response.status, dict(response.headers), response.read(1 << 20)
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), b""
