"""The journal as small objects in a bucket: for sinks on a cluster, which share no disk.

One object per piece of work, `PREFIX/ab/KEY.json`, created with If-None-Match and taken over with
If-Match: the server decides races. The second key of a piece of work is only remembered in this
process (one object instead of two per event). Old markers: let a lifecycle rule expire the prefix.
"""

import base64
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from .errors import NoBucket, ObjectGone, TryAgain
from .journal import Entry, Order, State
from .objects import ObjectStore, Stored


class S3Journal:
    """See `Journal`. Needs a server that honours If-None-Match on PUT (AWS, MinIO, SeaweedFS,
    Ceph)."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        bucket: str,
        prefix: str,
        ttl_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._bucket = bucket
        self._prefix = prefix.rstrip("/") + "/" if prefix else ""
        self._ttl_s = ttl_s
        self._clock = clock
        self._owner = uuid.uuid4().hex
        self._aliases: OrderedDict[str, str] = OrderedDict()

    def begin(self, keys: Sequence[str], lease_s: float) -> Entry:
        main = self._main(keys)
        claim = {"state": "claimed", "owner": self._owner, "expires": self._clock() + lease_s}
        try:
            self._write(main, claim, only_new=True)
        except NoBucket as error:
            raise TryAgain(f"the journal has no place: {error}") from error
        except ObjectGone:  # somebody was here before
            return self._take_over(main, claim)
        self._alias(keys)
        return Entry(State.NEW)

    def answered(self, keys: Sequence[str], answer: bytes) -> None:
        self._update(keys, state="claimed", answer=_text(answer))

    def done(self, keys: Sequence[str], reply: bytes, order: Order | None = None) -> None:
        main = self._main(keys)
        value = {"state": "done", "expires": self._clock() + self._ttl_s, "reply": _text(reply)}
        self._write(main, value)
        if order is not None:
            self._write(f"place/{order.object_id}", {"sequencer": order.sequencer})

    def release(self, keys: Sequence[str]) -> None:
        main = self._main(keys)
        value = self._read(main)
        if value is None or value[0].get("owner") != self._owner:
            return
        if value[0].get("answer") is None:
            self._store.delete(self._bucket, self._name(main))
        else:
            self._update(keys, state="answered", owner="")

    def last_sequencer(self, object_id: str) -> str | None:
        found = self._read(f"place/{object_id}")
        return None if found is None else found[0].get("sequencer")

    def keep(self, name: str, value: bytes, ttl_s: float) -> None:
        if not value:
            self._store.delete(self._bucket, self._name(f"kept/{name}"))
            return
        expires = self._clock() + ttl_s
        self._write(f"kept/{name}", {"expires": expires, "value": _text(value)})

    def kept(self, name: str) -> bytes | None:
        found = self._read(f"kept/{name}")
        if found is None or float(found[0]["expires"]) <= self._clock():
            return None
        return _bytes(found[0]["value"])

    def close(self) -> None:
        """Nothing to give back: a claim that is still ours runs out with its lease."""

    def _take_over(self, main: str, claim: dict[str, Any]) -> Entry:
        found = self._read(main)
        if found is None:  # released a moment ago: the next delivery will have it
            return Entry(State.BUSY)
        value, stored = found
        alive = float(value.get("expires", 0)) > self._clock()
        if value["state"] == "done" and alive:
            return Entry(State.DONE, None, _bytes(value.get("reply")))
        if value["state"] == "claimed" and alive:
            return Entry(State.BUSY)
        answer = None if value["state"] == "done" else value.get("answer")
        try:
            self._write(main, {**claim, "answer": answer}, if_etag=stored.etag)
        except ObjectGone:
            return Entry(State.BUSY)
        return Entry(State.NEW if answer is None else State.ANSWERED, _bytes(answer))

    def _update(self, keys: Sequence[str], **changes: Any) -> None:
        main = self._main(keys)
        found = self._read(main)
        if found is not None:
            self._write(main, {**found[0], **changes})

    def _main(self, keys: Sequence[str]) -> str:
        return next((self._aliases[key] for key in keys if key in self._aliases), keys[0])

    def _alias(self, keys: Sequence[str]) -> None:
        for key in keys[1:]:
            self._aliases[key] = keys[0]
        while len(self._aliases) > 100_000:
            self._aliases.popitem(last=False)

    def _name(self, key: str) -> str:
        return f"{self._prefix}{key if '/' in key else f'{key[:2]}/{key}'}.json"

    def _read(self, key: str) -> tuple[dict[str, Any], Stored] | None:
        try:
            stored = self._store.get(self._bucket, self._name(key))
        except ObjectGone:
            return None
        value = json.loads(stored.body)
        return value, stored

    def _write(
        self, key: str, value: dict[str, Any], *, only_new: bool = False, if_etag: str | None = None
    ) -> None:
        self._store.put(
            self._bucket,
            self._name(key),
            json.dumps(value).encode(),
            "application/json",
            only_new=only_new,
            if_etag=if_etag,
        )


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else base64.b64decode(value)
