"""What must not be printed: the secrets that a fetch was given, wherever a server repeats them.

Messages are built without secrets; but what a server says is quoted in them, and servers that echo
the request exist. Imported by the first error only.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl, quote, unquote, urlsplit

_SECRET = re.compile(r"SECRET|TOKEN|PASSWORD|KEY$|HEADERS$|CONNECTION_STRING$|SAS", re.IGNORECASE)
_PUBLIC = re.compile(r"_(FILE|ID|DIR|PATH)$", re.IGNORECASE)
SHORTEST = 6
"""Shorter values stand in every text by chance."""


def secrets_of(environ: Mapping[str, str], uris: Iterable[str]) -> list[str]:
    """Everything secret in the environment and in the URIs, the longest first."""
    found: set[str] = set()
    for name, value in environ.items():
        if _SECRET.search(name) and not _PUBLIC.search(name) and value:
            found |= _values(value)
        elif name.lower().endswith("_proxy") and "@" in value:
            found |= _of_uri(value)
    if environ.get("GIT_PASSWORD"):
        found.add(f"{environ.get('GIT_USERNAME', '')}:{environ['GIT_PASSWORD']}")
    for uri in uris:
        found |= _of_uri(uri)
    found |= {base64.b64encode(secret.encode()).decode() for secret in found}
    found |= {quote(secret, safe="") for secret in found}
    return sorted((secret for secret in found if len(secret) >= SHORTEST), key=len, reverse=True)


def _values(text: str) -> set[str]:
    """A secret itself, or those in a JSON object, header lines or a connection string."""
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if isinstance(data, dict):
        texts = [str(value) for value in data.values()]
    elif "\n" in text or re.search(r"(^|;)\w+=[^;]+;", text):
        texts = [part.partition(":" if ":" in part and "=" not in part else "=")[2]
                 for part in re.split(r"[\n;]", text)]  # fmt: skip
    else:
        texts = [text]
    return {word for value in texts for word in (value.strip(), *value.split()[1:])}


def _of_uri(uri: str) -> set[str]:
    try:
        parts = urlsplit(uri)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
    except ValueError:
        return set()
    found = {value for _, value in parse_qsl(parts.query)}
    if password:
        found |= {password, f"{user}:{password}"}
    elif user and parts.scheme in ("http", "https", "git+http", "git+https"):
        found.add(user)  # a token
    return found


def scrub(text: str, secrets: Iterable[str]) -> str:
    """`text` with every one of the secrets, and whatever an echoed Authorization holds, as `…`."""
    text = re.sub(r"\b(Basic|Bearer) +[\w+/=.~-]{6,}", r"\1 …", text, flags=re.IGNORECASE)
    for secret in secrets:
        text = text.replace(secret, "…")
    return text
