"""`oci://registry/repository[:tag|@digest]`: models in an OCI registry.

Two shapes: an *image* with a `/models` directory (KServe's modelcar; its layers are applied in
order, only that directory is kept) and an *artifact* whose layers are files with titles (oras).
Every blob is verified by its SHA-256. The registry protocol is four plain requests (manifest,
index, token, blob), so that big layers get the engine's ranges, resume and time limits; the
registry clients on PyPI read a layer in one stream. Credentials: a docker `config.json` at
`KSERVE_OCI_DOCKER_CONFIG`, `/mnt/oci-fetch-auth/config.json` or `DOCKER_CONFIG`.
`KSERVE_OCI_INSECURE_REGISTRY` allows plain http.
"""

import base64
import hashlib
import json
import os
import platform
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from storage_initializer.context import Context, refusal
from storage_initializer.errors import (
    AccessDenied,
    Corrupt,
    InvalidUri,
    NotFound,
    Relocated,
    StorageError,
)
from storage_initializer.items import FinishingSource, Item, safe_path
from storage_initializer.providers import oci_layers
from storage_initializer.providers.redirected import Located
from storage_initializer.settings import parse_flag
from storage_initializer.uri import Uri
from storage_initializer.wire import Request, Tls

_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
_TITLE = "org.opencontainers.image.title"
_UNPACK = "io.deis.oras.content.unpack"
"""Marks what `oras push` made of a directory."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_REFERENCE = re.compile(
    r"(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)(?::(?P<tag>[\w][\w.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def connect(uri: Uri, context: Context) -> "RegistrySource":
    return RegistrySource(uri, context)


class RegistrySource(Located, FinishingSource):
    """One image or artifact of a registry."""

    filtered = False

    def __init__(self, uri: Uri, context: Context) -> None:
        env = context.environ
        flag = env.get("KSERVE_OCI_INSECURE_REGISTRY", "")
        insecure = (
            parse_flag(flag)
            if flag.lower() in ("1", "0", "true", "false")
            else (uri.authority in flag.split(","))
        )
        super().__init__(uri.shown, Tls())
        found = _REFERENCE.fullmatch(uri.path)
        if not found:
            raise InvalidUri(uri.shown, "write oci://registry/repository:tag or …@sha256:…")
        self._context = context
        self._registry = uri.authority
        self._name = found["name"]
        self._reference = found["digest"] or found["tag"] or "latest"
        scheme = "http" if insecure else "https"
        host = "registry-1.docker.io" if uri.authority == "docker.io" else uri.authority
        if uri.authority == "docker.io" and "/" not in self._name:
            self._name = f"library/{self._name}"
        self._base = f"{scheme}://{host}/v2/{self._name}"
        self._basic = docker_credentials(env, uri.authority)
        self._token = ""
        self._token_lock = threading.Lock()
        self._image: list[Item] = []
        self._directories: list[str] = []

    def headers(self, url: str) -> dict[str, str]:
        if not url.startswith(self._base):
            return {}
        if self._token:
            return {"Authorization": f"Bearer {self._token}"}
        return {"Authorization": f"Basic {self._basic}"} if self._basic else {}

    def items(self) -> Iterator[Item]:
        manifest = self._manifest(self._reference)
        for _ in range(4):
            if "manifests" not in manifest:
                break
            manifest = self._manifest(self._for_this_machine(manifest["manifests"]))
        layers = manifest.get("layers")
        if not isinstance(layers, list) or not layers:
            raise NotFound(self.shown, "the manifest has no layers")
        notes = [layer.get("annotations") or {} for layer in layers]
        titles = [note.get(_TITLE) for note in notes]
        image = not any(titles)
        if image:
            oci_layers.check_media_types(self.shown, layers)
        self._image, self._directories = [], []
        for number, (layer, title) in enumerate(zip(layers, titles, strict=True)):
            digest = str(layer["digest"])
            if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
                raise StorageError(f"{self.shown}: unknown digest {digest[:80]!r}")
            if not image and not title:
                continue  # configuration blobs of artifacts
            item = Item(
                path=f"{oci_layers.RAW}/{number:04d}" if image else str(title),
                size=int(layer["size"]),
                version=digest,
                checks={"sha256": digest.removeprefix("sha256:")},
                ref=f"{self._base}/blobs/{digest}",
            )
            if image:
                self._image.append(item)
            elif notes[number].get(_UNPACK) == "true":
                self._directories.append(safe_path(self.shown, item.path))
            yield item

    def finish(self, tree: Path) -> Path:
        """Apply an image's layers and keep `/models`; of an artifact, directories are unpacked."""
        settings, control = self._context.settings, self._context.control
        if self._directories and settings.unpack:
            packed = self._directories
            return oci_layers.unpack_directories(self.shown, tree, packed, settings, control)
        if not self._image:
            return tree
        return oci_layers.apply(
            self.shown,
            tree,
            [tree / item.path for item in self._image],
            settings,
            control,
        )

    def _manifest(self, reference: str) -> dict[str, Any]:
        url = f"{self._base}/manifests/{reference}"

        def make() -> Request:
            request = self.to(url)
            request.headers["Accept"] = _ACCEPT
            return request

        _, _, body = self._context.ask(make, explain=self._explain_control)
        if reference.startswith("sha256:"):
            actual = hashlib.sha256(body).hexdigest()
            if reference != f"sha256:{actual}":
                raise Corrupt(f"{self.shown} (manifest)", "sha256", reference[7:], actual)
        try:
            data = json.loads(body)
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise StorageError(f"{self.shown}: the manifest is not a JSON object")
        return data

    def _for_this_machine(self, manifests: list[dict[str, Any]]) -> str:
        machine = _ARCHITECTURES.get(platform.machine(), platform.machine())
        for entry in manifests:
            wanted = entry.get("platform") or {}
            if wanted.get("architecture") == machine and wanted.get("os", "linux") == "linux":
                return str(entry["digest"])
        offered = sorted({str((e.get("platform") or {}).get("architecture")) for e in manifests})
        raise NotFound(self.shown, f"no image for {machine}, only for {', '.join(offered)}")

    def _explain_control(
        self, status: int, headers: Mapping[str, str], body: bytes
    ) -> StorageError:
        if status == 401 and self._token:  # asked one after the other: the token is a new one
            return self._denied(self.shown, status)
        return self.refused(self.shown, status, headers, body)

    def refused(
        self, where: str, status: int, headers: Mapping[str, str], body: bytes
    ) -> StorageError:
        challenge = headers.get("www-authenticate", "")
        if status == 401 and challenge.lower().startswith("bearer "):
            with self._token_lock:
                self._token = self._new_token(challenge)
            return Relocated(where, "a token was needed")
        if status in (401, 403):
            return self._denied(where, status)
        if status == 404:
            return NotFound(where, f"no {self._name}:{self._reference} at {self._registry}")
        return refusal(where, status, headers, body)

    def _denied(self, where: str, status: int) -> AccessDenied:
        advice = (
            "the registry refuses these credentials"
            if self._basic
            else "mount a docker config.json and name it in KSERVE_OCI_DOCKER_CONFIG"
        )
        return AccessDenied(where, str(status), advice)

    def _new_token(self, challenge: str) -> str:
        """Token authentication as the distribution specification describes it."""
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        realm = fields.pop("realm", "")
        if not realm.startswith(("https://", "http://")):
            raise AccessDenied(self.shown, "the registry's challenge names no realm")
        if realm.startswith("http://") and self._base.startswith("https://"):
            raise AccessDenied(self.shown, "the registry sends its token requests to plain http")
        query = {key: fields[key] for key in ("service", "scope") if key in fields}
        query.setdefault("scope", f"repository:{self._name}:pull")

        def make() -> Request:
            request = Request.to(f"{realm}?{urlencode(query)}", where=f"{self.shown} (token)")
            if self._basic:
                request.headers["Authorization"] = f"Basic {self._basic}"
            return request

        answer = self._context.ask_json(make)
        token = answer.get("token") or answer.get("access_token")
        if not token:
            raise AccessDenied(self.shown, "the token service gave no token")
        return str(token)


def docker_credentials(environ: Mapping[str, str], registry: str) -> str:
    """Base64 `user:password` of a registry from a docker config.json; empty when there is none."""
    home = environ.get("DOCKER_CONFIG", "")
    for path in (
        environ.get("KSERVE_OCI_DOCKER_CONFIG", ""),
        "/mnt/oci-fetch-auth/config.json",
        os.path.join(home, "config.json") if home else "",
    ):
        if not path or not os.path.isfile(path):
            continue
        try:
            auths = json.loads(Path(path).read_bytes()).get("auths", {})
        except (ValueError, AttributeError):
            raise StorageError(f"{path}: not a docker config.json") from None
        names = [registry, f"https://{registry}", f"https://{registry}/v1/"]
        if registry == "docker.io":
            names.append("https://index.docker.io/v1/")
        for name in names:
            entry = auths.get(name, {})
            if entry.get("auth"):
                return str(entry["auth"])
            if entry.get("username"):
                pair = f"{entry['username']}:{entry.get('password', '')}"
                return base64.b64encode(pair.encode()).decode()
    return ""
