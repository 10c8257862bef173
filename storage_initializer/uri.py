"""Artifact URIs: what they are, which provider reads them, how they are written in a log.

Standard library only and no I/O, so that manifest validation can use `check`. The grammar is
KServe's (storage initializer of 0.15 to 0.21) plus the forms its users ask for: `git+https`,
`abfs(s)`, `azure`, a `#sha256=` fragment on single files.
"""

import os
import re
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit, urlunsplit

from . import sha256
from .errors import InvalidUri
from .records import Record

PROVIDERS = {
    "file": "local",
    "pvc": "pvc",
    "http": "http",
    "https": "http",
    "s3": "s3",
    "gs": "gcs",
    "azure": "azure",
    "abfs": "azure",
    "abfss": "azure",
    "wasb": "azure",
    "wasbs": "azure",
    "hf": "hf",
    "git+http": "git",
    "git+https": "git",
    "git+ssh": "git",
    "hdfs": "hdfs",
    "webhdfs": "hdfs",
    "oci": "oci",
    "oci+fetch": "oci",
}
"""URI scheme → module below `storage_initializer.providers`."""

PLACEHOLDER = "<scheme-placeholder>://"
"""KServe's, before a path: the storage spec knows scheme and bucket (`storage_spec`)."""

# Compiled by the first URI that needs them: each takes 0.2 ms of the start.
_AZURE_BLOB = r"\.blob\.(core\.windows\.net|storage\.azure\.net)$|\.z\d+\.blob\."
_AZURE_FILE = r"\.file\.(core\.windows\.net|storage\.azure\.net)$|\.z\d+\.file\."
_OWNER = r"[A-Za-z0-9._-]+"
_BUCKET = r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}"
_DIGEST = r"sha256=([0-9a-fA-F]{64})"
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"


class Uri(Record):
    """A parsed source. `text` may hold secrets (userinfo, SAS query): print `shown` instead."""

    text: str
    scheme: str
    provider: str
    """Module name below `providers`."""
    authority: str
    """Bucket, host, owner or claim, as the scheme has it; userinfo included."""
    path: str
    """After the authority, without the leading `/`, not unquoted; for `file` the absolute path."""
    query: str
    sha256: str | None
    """Expected digest of a single file, from `#sha256=HEX`."""

    @property
    def shown(self) -> str:
        return redact(self.text)

    @property
    def identity(self) -> str:
        """Stable name of this source for markers: a digest, because `text` may hold secrets."""
        return sha256.hexdigest(_identity_text(self.text).encode())[:32]


def _identity_text(text: str) -> str:
    """The text without a signed query: a renewed SAS token is still the same source."""
    if not re.match(_SCHEME, text):
        text = f"file://{os.path.abspath(text)}"
    parts = urlsplit(text)
    if parts.scheme in ("http", "https") and re.search(r"(^|&)(sig|X-Amz-Signature)=", parts.query):
        parts = parts._replace(query="")
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host))


def redact(text: str) -> str:
    """`text` without userinfo and with the values of query parameters replaced by `…`."""
    if not re.match(_SCHEME, text):
        scheme = _broken_scheme(text)
        return f"{scheme}:…" if scheme else text
    try:
        parts = urlsplit(text)
    except ValueError:  # `s3://[x`: no host can be found in it, so no password either
        return text.partition("://")[0] + "://…"
    netloc = parts.netloc
    if "@" in netloc and not parts.scheme.startswith(("abfs", "wasb")):
        netloc = "…@" + netloc.rpartition("@")[2]
    query = re.sub(r"=[^&]*", "=…", parts.query) if parts.query else ""
    return urlunsplit((parts.scheme, netloc, parts.path, query, parts.fragment))


def _broken_scheme(text: str) -> str:
    """`s3` of `s3:/bucket`, empty for a path (one that begins like this is written ./s3:x)."""
    scheme, colon, _ = text.partition(":")
    return scheme if colon and scheme.lower() in PROVIDERS else ""


def apply_mirrors(text: str, mirrors: Iterable[tuple[str, str]]) -> str:
    """Rewrite a URI prefix; the longest matching FROM wins, `STORAGE_MIRRORS` order breaks ties."""
    best: tuple[str, str] | None = None
    for source, target in mirrors:
        if text.startswith(source) and (best is None or len(source) > len(best[0])):
            best = (source, target)
    if best is None:
        return text
    rest = text[len(best[0]) :]
    if rest and not best[0].endswith("/") and not rest.startswith(("/", "?", "#")):
        return text  # `s3://b/model=` must not catch `s3://b/model-old`
    target = best[1] if best[1].endswith("://") else best[1].rstrip("/") + "/"
    return target + rest.lstrip("/") if rest else best[1]


def parse(text: str) -> Uri:
    """Parse and classify one source; raises InvalidUri with what to write instead."""
    if not text or text != text.strip():
        raise InvalidUri(repr(text), "empty or surrounded by spaces")
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise InvalidUri(repr(redact(text)), "has control characters")
    if not re.match(_SCHEME, text):
        return _parse_path(text)
    scheme = text.partition("://")[0].lower()
    provider = PROVIDERS.get(scheme)
    if scheme == "modelscope":
        model = redact(text).partition("://")[2]
        raise InvalidUri(
            redact(text),
            "ModelScope is not supported; most of its models are on Hugging Face too: "
            f"hf://{model}; or copy the model to a bucket or volume of your own (s3://, pvc://)",
        )
    if provider is None:
        known = ", ".join(f"{name}://" for name in PROVIDERS)
        raise InvalidUri(redact(text), f"unknown scheme {scheme}://; known: {known} or a path")
    if scheme in ("s3", "gs", "hf"):  # keys may contain `?` and `#`
        return _parse_object(text, scheme, provider)
    if scheme == "file":  # names, too
        host, slash, path = text.partition("://")[2].partition("/")
        return _parse_file(text, host, slash + path)
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as exc:
        raise InvalidUri(redact(text), str(exc)) from None
    if not parts.netloc and not (provider == "hdfs" and parts.path.strip("/")):
        raise InvalidUri(redact(text), f"nothing after {scheme}://")
    if scheme in ("http", "https"):
        provider = _http_provider(parts.hostname or "", parts.path)
        if provider == "http" and not parts.path.strip("/") and not parts.query:
            raise InvalidUri(redact(text), "names a host but no file")
    return Uri(
        text=text,
        scheme=scheme,
        provider=provider,
        authority=parts.netloc,
        path=parts.path.removeprefix("/"),
        query=parts.query,
        sha256=_digest(text, parts.fragment),
    )


def _http_provider(host: str, path: str) -> str:
    if re.search(_AZURE_BLOB, host):
        return "azure"
    if re.search(_AZURE_FILE, host):
        return "azure_files"
    if re.search(r"\.git(@.+)?$", path):
        return "git"
    return "http"


def _digest(text: str, fragment: str) -> str | None:
    if not fragment:
        return None
    found = re.fullmatch(_DIGEST, fragment)
    if found is None and fragment.startswith("sha256"):
        raise InvalidUri(redact(text), "the fragment must be #sha256= and 64 hexadecimal digits")
    return found[1].lower() if found else None


def _parse_object(text: str, scheme: str, provider: str) -> Uri:
    rest = text.partition("://")[2]
    sha256 = None
    if "#" in rest and (found := re.search(r"#sha256=([0-9a-fA-F]{64})$", rest)):
        sha256, rest = found[1].lower(), rest[: found.start()]
    authority, _, path = rest.partition("/")
    if scheme == "hf":
        if not re.fullmatch(_OWNER, authority) or not path.strip("/"):
            raise InvalidUri(redact(text), "write hf://owner/model or hf://owner/model:revision")
    elif not re.fullmatch(_BUCKET, authority):
        name = "…@" + authority.rpartition("@")[2] if "@" in authority else authority
        raise InvalidUri(redact(text), f"{name!r} is no bucket name: {scheme}://BUCKET/PATH")
    return Uri(
        text=text,
        scheme=scheme,
        provider=provider,
        authority=authority,
        path=path,
        query="",
        sha256=sha256,
    )


def _parse_file(text: str, netloc: str, path: str) -> Uri:
    if netloc not in ("", "localhost"):
        raise InvalidUri(text, f"{netloc!r} is taken for a host: write file:///PATH")
    if not path.startswith("/"):
        raise InvalidUri(text, "write an absolute path: file:///PATH")
    return Uri(
        text=text,
        scheme="file",
        provider="local",
        authority="",
        path=unquote(path),
        query="",
        sha256=None,
    )


def _parse_path(text: str) -> Uri:
    if text.startswith(PLACEHOLDER):
        cause = "the storage spec names no bucket for it: STORAGE_CONFIG needs `bucket`"
        raise InvalidUri(text, cause)
    if scheme := _broken_scheme(text):
        form = "file:///PATH" if scheme.lower() == "file" else f"{scheme}://…"
        raise InvalidUri(redact(text), f"write {form}")
    return Uri(
        text=text,
        scheme="file",
        provider="local",
        authority="",
        path=text,
        query="",
        sha256=None,
    )


def check(text: str) -> list[tuple[str, str]]:
    """Problems of a source as `(path, message)`; path is empty. For manifest validation."""
    try:
        parse(text)
    except InvalidUri as exc:
        return [("", str(exc))]
    return []
