"""Where the predictor is: `--predictor-host` and the proxy on the way there."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One place to call. `proxy` is (host, port) of an HTTP proxy, None for a direct connection."""

    scheme: str
    host: str
    port: int
    path: str = ""
    """Prefix of every path, without a slash at its end."""
    proxy: tuple[str, int] | None = None

    @property
    def tls(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """Host header: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def address(self) -> str:
        """`host:port`, as gRPC writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """As messages name it."""
        return f"{self.scheme}://{self.authority}{self.path}"


_PORTS = {"http": 80, "https": 443}


def speaks_grpc(text: str) -> bool:
    """The scheme says gRPC: `grpc://`, `grpcs://`, or grpcio's own `dns:///host:port`."""
    return text.strip().partition("://")[0].lower() in _GRPC_SCHEMES


_GRPC_SCHEMES = {"grpc": "http", "grpcs": "https", "dns": "http"}


def shown(text: str) -> str:
    """As messages may show it: without a password somebody put there."""
    return re.sub(r"//[^/@]*@", "//***@", text)


def parse(text: str, *, use_ssl: bool = False, environ: Mapping[str, str] | None = None) -> Target:
    """A Target from `host[:port]` (KServe's form) or a URL. Raises ValueError with what is wrong.

    `use_ssl` makes `host[:port]` https; a scheme in the text says so itself. `environ` has
    http_proxy, https_proxy and no_proxy, lower case before upper, as curl reads them.
    """
    text = text.strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        if text.count(":") > 1 and "[" not in text:  # an IPv6 address alone
            text = f"[{text}]"
        text = f"{'https' if use_ssl else 'http'}://{text}"
    elif speaks_grpc(text):
        scheme = _GRPC_SCHEMES[scheme.lower()]
        text = f"{'https' if use_ssl else scheme}://{rest.lstrip('/')}"
    try:
        parts = urlsplit(text)
        port = parts.port
        if port == 0:
            raise ValueError("port 0")
    except ValueError as exc:
        raise ValueError(f"host[:port] or a URL ({exc})") from None
    if parts.scheme not in _PORTS:
        raise ValueError("host[:port], http://… or https://…")
    if not parts.hostname or any(c.isspace() for c in text):
        raise ValueError("host[:port] or a URL with a host")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("host[:port] or a URL without user, query and fragment")
    host = parts.hostname
    where = Target(
        scheme=parts.scheme,
        host=host,
        port=port or _PORTS[parts.scheme],
        path=parts.path.rstrip("/"),
    )
    proxy = _proxy_for(where, environ or {})
    if proxy is None:
        return where
    return Target(scheme=where.scheme, host=host, port=where.port, path=where.path, proxy=proxy)


def _proxy_for(target: Target, environ: Mapping[str, str]) -> tuple[str, int] | None:
    def variable(name: str) -> str:
        return environ.get(name) or environ.get(name.upper()) or ""

    text = variable(f"{target.scheme}_proxy")
    if not text or _bypassed(target, variable("no_proxy")):
        return None
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{target.scheme}_proxy to be http://host[:port]")
    return parts.hostname, parts.port or 80


def _bypassed(target: Target, no_proxy: str) -> bool:
    """Loopback is never proxied; entries are names (with their subdomains), addresses, networks,
    `host:port` or `*`."""
    host = target.host.rstrip(".").lower()
    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    for entry in filter(None, (part.strip().lower() for part in no_proxy.split(","))):
        if entry == "*":
            return True
        if address is not None and "/" in entry:
            try:
                if address in ipaddress.ip_network(entry, strict=False):
                    return True
            except ValueError:
                continue
        name, _, port = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
        if port and port != str(target.port):
            continue
        name = name.removeprefix("*").removeprefix(".")
        if host == name or host.endswith("." + name):
            return True
    return False
