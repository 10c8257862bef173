"""Where a step goes: absolute URLs, checked once at boot. No I/O."""

import re
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

_HOST = re.compile(r"[A-Za-z0-9._~\-]+|\[[0-9A-Fa-f:.]+\]")
_DEFAULT_PORTS = {"http": 80, "https": 443, "grpc": 80, "grpcs": 443}


@dataclass(frozen=True, slots=True)
class Url:
    """An absolute URL, ready to be called."""

    scheme: str
    host: str
    """Without brackets."""
    port: int
    target: str
    """Path and query as sent: never empty, percent-encoded."""

    @property
    def authority(self) -> str:
        """What goes into Host: the port only when it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        return self.origin + self.target


def parse_url(text: str) -> Url:
    """Parse an absolute http, https, grpc or grpcs URL. Raises ValueError with what is wrong."""
    if any(ord(c) < 0x20 or ord(c) == 0x7F for c in text):
        raise ValueError("a URL has no control characters")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{text!r} is no URL: {error}") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"{text!r} must start with http://, https:// or grpc://")
    host = parts.netloc.rpartition("@")[2]
    host = host[: host.rindex("]") + 1] if "]" in host else host.partition(":")[0]
    if not host:
        raise ValueError(f"{text!r} has no host")
    if _HOST.fullmatch(host) is None:
        raise ValueError(f"{text!r} has a malformed host")
    if port == 0:
        raise ValueError(f"{text!r} has no usable port")
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (
        "?" + quote(parts.query, safe="/?%:@!$&'()*+,;=~-._[]{}|\"<>^`\\") if parts.query else ""
    )
    return Url(parts.scheme, host.strip("[]"), port or _DEFAULT_PORTS[parts.scheme], target)


def resolve(base: Url, location: str) -> Url:
    """The URL a redirect from `base` leads to. Raises ValueError."""
    return parse_url(urljoin(str(base), location))
