"""Authorization for Azure Storage: AAD token, account key, SAS or nothing, in KServe's order.

Standard library only: the three token requests (client secret, workload identity, managed
identity) are one POST or GET each, and a shared-key signature is one HMAC. The Azure SDK would
bring 30 MB and a second to start.
"""

import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Mapping
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from storage_initializer.context import Context
from storage_initializer.errors import AccessDenied, InvalidSettings, StorageError
from storage_initializer.wire import Request

API_VERSION = "2021-12-02"
SCOPE = "https://storage.azure.com/.default"
RENEW_BEFORE_S = 120.0
_LEGACY = ("CLIENT_ID", "TENANT_ID", "CLIENT_SECRET", "SUBSCRIPTION_ID")


def connection_string(environ: Mapping[str, str]) -> dict[str, str]:
    """`AZURE_STORAGE_CONNECTION_STRING` as a mapping; empty when unset."""
    text = environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    pairs = (part.split("=", 1) for part in text.split(";") if part)
    try:
        return {name.strip(): value for name, value in pairs}
    except ValueError:
        problem = "AZURE_STORAGE_CONNECTION_STRING: expected Name=Value;Name=Value"
        raise InvalidSettings([problem]) from None


class Authorizer:
    """Signs requests for one storage account."""

    def __init__(self, account: str, sas: str, context: Context) -> None:
        env = dict(context.environ)
        for name in _LEGACY:
            if env.get(f"AZ_{name}"):
                env.setdefault(f"AZURE_{name}", env[f"AZ_{name}"])
        known = connection_string(env)
        self._env = env
        self._context = context
        self._account = account
        self._sas = sas or known.get("SharedAccessSignature", "").lstrip("?")
        self._lock = threading.Lock()
        self._token = env.get("AZURE_ACCESS_TOKEN", "")
        self._good_until = time.time() + 10**9 if self._token else 0.0
        key = env.get("AZURE_STORAGE_ACCESS_KEY") or env.get("AZURE_STORAGE_KEY")
        key = key or known.get("AccountKey", "")
        try:
            self._key = base64.b64decode(key, validate=True)
        except ValueError:
            raise InvalidSettings(["AZURE_STORAGE_ACCESS_KEY: expected base64"]) from None
        if self._sas:
            self.kind = "sas"
        elif self._token or env.get("AZURE_CLIENT_ID"):
            self.kind = "aad"
        else:
            self.kind = "key" if self._key else "anonymous"

    @property
    def advice(self) -> str:
        return {
            "sas": "the SAS token may have expired or lack read and list permissions",
            "aad": "the identity needs the role Storage Blob Data Reader",
            "key": "check AZURE_STORAGE_ACCESS_KEY",
            "anonymous": "no credentials were found: set AZURE_STORAGE_ACCESS_KEY, AZURE_CLIENT_ID "
            "or append a SAS token to the URL",
        }[self.kind]

    def sign(self, request: Request) -> Request:
        """Add version, date and authorization. The target must be final."""
        request.headers["x-ms-version"] = API_VERSION
        request.headers["x-ms-date"] = formatdate(usegmt=True)
        if self.kind == "sas":
            joint = "&" if "?" in request.target else "?"
            request.target += joint + self._sas
        elif self.kind == "aad":
            request.headers["Authorization"] = f"Bearer {self._current_token()}"
        elif self.kind == "key":
            signature = self._signature(request)
            request.headers["Authorization"] = f"SharedKey {self._account}:{signature}"
        return request

    def _signature(self, request: Request) -> str:
        """Shared Key for Blob, Queue and File services (2015-02-21 and later)."""
        lower = {name.lower(): value for name, value in request.headers.items()}
        standard = [
            lower.get(name, "")
            for name in (
                "content-encoding", "content-language", "content-length", "content-md5",
                "content-type", "date", "if-modified-since", "if-match", "if-none-match",
                "if-unmodified-since", "range",
            )
        ]  # fmt: skip
        own = "".join(
            f"{name}:{value}\n" for name, value in sorted(lower.items()) if name[:5] == "x-ms-"
        )
        parts = urlsplit(request.target)
        resource = f"/{self._account}{parts.path}"
        for name, value in sorted((n.lower(), v) for n, v in parse_qsl(parts.query)):
            resource += f"\n{name}:{value}"
        text = "\n".join([request.method, *standard, own + resource])
        digest = hmac.new(self._key, text.encode(), hashlib.sha256).digest()
        return base64.b64encode(digest).decode()

    def _current_token(self) -> str:
        with self._lock:
            if time.time() >= self._good_until:
                answer = self._context.ask_json(self._token_request, explain=_explain)
                token = answer.get("access_token") if isinstance(answer, dict) else None
                if not token:
                    raise AccessDenied("Azure AD", "no access_token in the answer")
                self._token = str(token)
                lifetime = float(answer.get("expires_in", 3600))
                self._good_until = time.time() + max(60.0, lifetime - RENEW_BEFORE_S)
            return self._token

    def _token_request(self) -> Request:
        env = self._env
        client, tenant = env.get("AZURE_CLIENT_ID", ""), env.get("AZURE_TENANT_ID", "")
        secret, token_file = env.get("AZURE_CLIENT_SECRET"), env.get("AZURE_FEDERATED_TOKEN_FILE")
        if not (secret or token_file):
            return self._managed_identity(client)
        if not tenant:
            raise InvalidSettings(["AZURE_TENANT_ID: needed with AZURE_CLIENT_ID"])
        form = {"grant_type": "client_credentials", "client_id": client, "scope": SCOPE}
        if secret:
            form["client_secret"] = secret
        else:
            kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            form["client_assertion_type"] = kind
            try:
                form["client_assertion"] = Path(str(token_file)).read_text().strip()
            except OSError as exc:
                advice = "check that the workload identity's token is mounted there"
                raise AccessDenied("Azure AD", str(exc), advice) from exc
        host = env.get("AZURE_AUTHORITY_HOST") or "https://login.microsoftonline.com"
        url = f"{host.rstrip('/')}/{quote(tenant, safe='')}/oauth2/v2.0/token"
        request = Request.to(url, where="Azure AD")
        request.method = "POST"
        request.headers["Content-Type"] = "application/x-www-form-urlencoded"
        request.body = urlencode(form).encode()
        return request

    def _managed_identity(self, client: str) -> Request:
        query = {"api-version": "2018-02-01", "resource": "https://storage.azure.com/"}
        if client:
            query["client_id"] = client
        host = self._env.get("AZURE_POD_IDENTITY_AUTHORITY_HOST") or "http://169.254.169.254"
        url = f"{host.rstrip('/')}/metadata/identity/oauth2/token?{urlencode(query)}"
        request = Request.to(url, where="Azure managed identity")
        request.headers["Metadata"] = "true"
        return request


def _explain(status: int, headers: Mapping[str, str], body: bytes) -> StorageError:
    from storage_initializer.context import refusal

    if status in (400, 401):
        advice = "check AZURE_CLIENT_ID, AZURE_TENANT_ID and the secret or federated token"
        return AccessDenied("Azure AD", str(status), advice)
    return refusal("Azure AD", status, headers, body)
