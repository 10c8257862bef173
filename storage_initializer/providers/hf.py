"""`hf://owner/model[:revision][/sub/dir]`: a Hugging Face model repository over its HTTP API.

The revision is resolved to a commit first, so that a moving branch cannot give a mixed tree. Every
file is verified: the hub tells SHA-256 for large (LFS/Xet) files and git's blob SHA-1 for the
rest. Plain HTTP instead of the `huggingface_hub` package: ranges, resume, stall detection and
verification are the engine's, and nothing has to be imported. `HF_TOKEN`, `HF_ENDPOINT` as there.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urljoin

from storage_initializer.context import Context, refusal
from storage_initializer.errors import AccessDenied, InvalidUri, NotFound, StorageError
from storage_initializer.items import Item
from storage_initializer.providers.redirected import REDIRECTS, Located
from storage_initializer.uri import Uri
from storage_initializer.wire import Tls

DEFAULT_ENDPOINT = "https://huggingface.co"
MAX_REDIRECTS = 5


def connect(uri: Uri, context: Context) -> "HubSource":
    return HubSource(uri, context)


def parse_repository(uri: Uri) -> tuple[str, str, str]:
    """(owner/model, revision, sub directory or empty)."""
    name, _, rest = uri.path.partition("/")
    model, _, revision = name.partition(":")
    if not revision and ":" in rest:
        raise InvalidUri(uri.shown, "the revision follows the model: hf://owner/model:revision")
    if not model or (":" in name and not revision):
        raise InvalidUri(uri.shown, "write hf://owner/model or hf://owner/model:revision")
    return f"{uri.authority}/{model}", revision or "main", rest.strip("/")


class HubSource(Located):
    """One commit of one repository."""

    def __init__(self, uri: Uri, context: Context) -> None:
        super().__init__(uri.shown, Tls())
        self._context = context
        self._repo, self._revision, self._directory = parse_repository(uri)
        env = context.environ
        self._endpoint = (env.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        self._token = env.get("HF_TOKEN") or env.get("HUGGING_FACE_HUB_TOKEN") or ""

    def headers(self, url: str) -> dict[str, str]:
        if self._token and url.startswith(self._endpoint + "/"):
            return {"Authorization": f"Bearer {self._token}"}
        return {}

    def items(self) -> Iterator[Item]:
        repo = quote(self._repo)
        revision = quote(self._revision, safe="")
        url = f"{self._endpoint}/api/models/{repo}/revision/{revision}"
        about = _json(self._ask(url)[2])
        commit = str(about.get("sha", "")) if isinstance(about, dict) else ""
        if not re.fullmatch(r"[0-9a-f]{40,64}", commit):
            raise StorageError(f"{self.shown}: the hub names no commit for {self._revision!r}")
        below = f"/{quote(self._directory)}" if self._directory else ""
        url = f"{self._endpoint}/api/models/{repo}/tree/{commit}{below}?recursive=true"
        found = False
        while url:
            url, headers, body = self._ask(url)
            for entry in _entries(body, self.shown):
                if entry.get("type") == "file":
                    found = True
                    yield self._item(entry, commit)
            url = _next_page(url, headers)
        if not found:
            raise NotFound(self.shown, "the repository has no file there")

    def _ask(self, url: str) -> tuple[str, Mapping[str, str], bytes]:
        """(final URL, headers, body); a renamed repository answers with a redirect."""
        for _ in range(MAX_REDIRECTS):
            make = functools.partial(self.to, url)
            ok = (200, *REDIRECTS)
            status, headers, body = self._context.ask(make, ok=ok, explain=self._explain)
            if status == 200:
                return url, headers, body
            target = urljoin(url, headers.get("location", ""))
            if not target.startswith(("https://", url.partition("//")[0] + "//")):
                raise StorageError(f"{self.shown}: the hub leads to a plain http address; refused")
            url = target
        raise StorageError(f"{self.shown}: more than {MAX_REDIRECTS} redirects")

    def _item(self, entry: Mapping[str, Any], commit: str) -> Item:
        path = str(entry["path"])
        lfs = entry.get("lfs")
        if isinstance(lfs, dict):
            size = int(lfs.get("size", entry.get("size", 0)))
            checks = {"sha256": str(lfs["oid"]).removeprefix("sha256:")}
        else:
            size, checks = int(entry["size"]), {"gitsha1": str(entry["oid"])}
        relative = path.removeprefix(f"{self._directory}/") if self._directory else path
        return Item(
            path=relative,
            size=size,
            version=next(iter(checks.values())),
            checks=checks,
            ref=f"{self._endpoint}/{quote(self._repo)}/resolve/{commit}/{quote(path)}",
        )

    def _explain(self, status: int, headers: Mapping[str, str], body: bytes) -> StorageError:
        return self.refused(self.shown, status, headers, body)

    def refused(
        self, where: str, status: int, headers: Mapping[str, str], body: bytes
    ) -> StorageError:
        said = headers.get("x-error-message", "")
        if status in (401, 403):
            advice = (
                "accept the model's conditions on the hub with this token's account"
                if self._token
                else "a private or gated model needs HF_TOKEN (or the name is misspelt)"
            )
            return AccessDenied(where, said or str(status), advice)
        if status == 404:
            cause = said or f"no model {self._repo!r} with revision {self._revision!r}"
            return NotFound(where, cause)
        return refusal(where, status, headers, body)


def _json(body: bytes) -> Any:
    import json

    try:
        return json.loads(body)
    except ValueError:
        return None


def _entries(body: bytes, where: str) -> list[dict[str, Any]]:
    data = _json(body)
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise StorageError(f"{where}: the hub's file list is not what its API promises")
    return data


def _next_page(url: str, headers: Mapping[str, str]) -> str:
    found = re.search(r'<([^>]+)>;\s*rel="next"', headers.get("link", ""))
    return urljoin(url, found[1]) if found else ""
