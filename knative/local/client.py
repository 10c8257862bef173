"""Talking to a running engine from the command line: find it, call its API, send requests.

Standard library only, so that `ps` and `invoke` start fast.
"""

import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from .errors import EngineError
from .state import read_engine

DEFAULT_PORT = 8080


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One engine, found by its state directory or its port."""

    def __init__(self, port: int | None = None, state_dir: Path | None = None) -> None:
        if state_dir is not None:
            found = read_engine(state_dir)
            if found is None:
                raise EngineError(f"no engine is running with state directory {state_dir}")
            port = int(found["port"])
        self.port = port or DEFAULT_PORT

    def get(self, name: str, **query: object) -> Any:
        """GET /_turnout/api/NAME as JSON. Raises EngineError."""
        chosen = {key: value for key, value in query.items() if value not in (None, "", False)}
        return self._call("GET", f"/_turnout/api/{name}?{urlencode(chosen)}", None)

    def post(self, name: str, **arguments: object) -> Any:
        """POST /_turnout/api/NAME with JSON arguments. Raises EngineError."""
        return self._call("POST", f"/_turnout/api/{name}", json.dumps(arguments).encode())

    def _call(self, method: str, target: str, body: bytes | None) -> Any:
        headers = {"X-Turnout": "1", "Host": "localhost"}
        answer = self.request(method, target, headers, body, timeout_s=30)
        try:
            value = json.loads(answer.body)
        except ValueError:
            raise EngineError(f"port {self.port} is not a turnout engine") from None
        if answer.status != 200:
            message = value.get("error") if isinstance(value, dict) else None
            raise EngineError(str(message or f"the engine answered {answer.status}"))
        return value

    def request(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes | None,
        *,
        timeout_s: float,
    ) -> Answer:
        """One HTTP request to the gateway. Raises EngineError when there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request(method, target, body=body, headers=headers)
            response = connection.getresponse()
            return Answer(
                status=response.status,
                headers={name.lower(): value for name, value in response.getheaders()},
                body=response.read(),
            )
        except ConnectionRefusedError:
            raise EngineError(
                f"no engine is running on port {self.port}: start one with `turnout up FILE...`, "
                "or say which with --port or --state-dir"
            ) from None
        except TimeoutError:
            raise EngineError(f"no answer within {timeout_s:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"port {self.port}: {error}") from None
        finally:
            connection.close()
