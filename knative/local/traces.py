"""The last requests, as the console shows them: who called whom, and where the time went.

Requests of one graph run share a trace id (`traceparent`), which the gateway gives to requests
that come without one. A ring of fixed size; nothing is written to disk, no body or header value is
kept.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

from .clock import wall_time
from .pods import Timeline


@dataclass(slots=True)
class Record:
    """One request through the gateway. Instants are readings of the engine's clock."""

    number: int
    trace: str
    method: str
    path: str
    service: str
    revision: str = ""
    pod: str = ""
    arrived: float = 0.0
    granted: float = 0.0
    """When a pod was there to take it; equals `arrived` when warm."""
    first_byte: float = 0.0
    ended: float = 0.0
    status: int = 0
    bytes_out: int = 0
    error: str = ""
    entry: bool = False
    """Came from outside: no other request of its trace was under way."""
    cold: Timeline | None = None
    """Timeline of the pod that this request waited for."""

    def to_json(self, now: float) -> dict[str, Any]:
        """Plain data with wall-clock start and durations in milliseconds."""

        def since(at: float | None) -> float | None:
            return None if not at else round((at - self.arrived) * 1000, 2)

        result: dict[str, Any] = {
            "id": self.number,
            "trace": self.trace,
            "method": self.method,
            "path": self.path,
            "service": self.service,
            "revision": self.revision,
            "pod": self.pod,
            "at": round(wall_time(self.arrived, now), 3),
            "status": self.status,
            "bytes": self.bytes_out,
            "entry": self.entry,
            "waited_ms": since(self.granted) or 0.0,
            "first_byte_ms": since(self.first_byte),
            "total_ms": since(self.ended),
        }
        if self.error:
            result["error"] = self.error
        if self.cold is not None:
            result["cold"] = {
                "created_ms": since(self.cold.created),
                "init_started_ms": since(self.cold.init_started),
                "init_ended_ms": since(self.cold.init_ended),
                "started_ms": since(self.cold.started),
                "listening_ms": since(self.cold.listening),
                "ready_ms": since(self.cold.ready),
            }
        return result


class Recorder:
    """The ring of records; `open` at arrival, `close` at the end."""

    def __init__(self, size: int) -> None:
        self._ring: deque[Record] = deque(maxlen=size)
        self._under_way: dict[str, int] = {}
        self._number = 0

    def open(self, record: Record) -> None:
        """Number the record and note whether it is the entry of its trace."""
        self._number += 1
        record.number = self._number
        under_way = self._under_way.get(record.trace, 0)
        record.entry = under_way == 0
        self._under_way[record.trace] = under_way + 1

    def close(self, record: Record) -> None:
        remaining = self._under_way.get(record.trace, 1) - 1
        if remaining > 0:
            self._under_way[record.trace] = remaining
        else:
            self._under_way.pop(record.trace, None)
        self._ring.append(record)

    def recent(self, limit: int = 100, *, after: int = 0) -> list[Record]:
        """Newest first; `after` leaves out records up to that number."""
        chosen = [record for record in reversed(self._ring) if record.number > after]
        return chosen[:limit]

    def trace(self, trace_id: str) -> list[Record]:
        """All remembered requests of a trace, in order of arrival."""
        found = [record for record in self._ring if record.trace == trace_id]
        return sorted(found, key=lambda record: record.arrived)
