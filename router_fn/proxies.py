"""Which proxy an upstream is called through: http_proxy, https_proxy and no_proxy as curl and Go
read them."""

import ipaddress
from collections.abc import Callable

from router_fn.urls import Url, parse_url


def make_chooser(http_proxy: str, https_proxy: str, no_proxy: str) -> Callable[[Url], Url | None]:
    """A function from upstream to proxy (None: direct). Raises ValueError for a proxy URL that is
    none.

    Loopback is never proxied. `no_proxy` entries: a host name (its subdomains too; a leading dot
    means only those), an address, a network in CIDR form, `host:port`, or `*`.
    """
    by_scheme = {
        scheme: parse_url(text if "://" in text else f"http://{text}")
        for scheme, text in (("http", http_proxy), ("https", https_proxy))
        if text
    }
    rules = [entry.strip().lower() for entry in no_proxy.split(",") if entry.strip()]

    def choose(url: Url) -> Url | None:
        proxy = by_scheme.get(url.scheme)
        if proxy is None or _bypassed(url, rules):
            return None
        return proxy

    return choose


def _bypassed(url: Url, rules: list[str]) -> bool:
    host = url.host.lower().rstrip(".")
    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    for rule in rules:
        if rule == "*":
            return True
        if address is not None and "/" in rule:
            try:
                if address in ipaddress.ip_network(rule, strict=False):
                    return True
            except ValueError:
                continue
        name, _, port = rule.rpartition(":") if rule.count(":") == 1 else (rule, "", "")
        if port and port != str(url.port):
            continue
        name = name.removeprefix("*")
        if host == name or (
            host.endswith(name) if name.startswith(".") else host.endswith("." + name)
        ):
            return True
    return False
