"""Rules about triggers that wake each other, or take each other's input away (docs/events.md)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from events import names, template
from events.spec import DEFAULT_KEY
from knative.api.problems import Level
from knative.api.resource import Resource
from knative.lint.rule import Found, Rule, View
from knative.resources import trigger_parts as parts

JSON = Any
ANYTHING = None
"""What a placeholder becomes, as far as can be known here."""


@dataclass(frozen=True, slots=True)
class _Area:
    """Keys that begin and end in a certain way, in buckets; `whole`: exactly `start`."""

    buckets: Sequence[str]
    """Names for what is watched, patterns for what is written."""
    start: str
    end: str
    whole: bool = False

    def may_hold(self, written: "_Area") -> bool:
        """Whether something written there may be among these."""
        if not any(re.fullmatch(p, name) for p in written.buckets for name in self.buckets):
            return False
        if written.whole:
            return written.start.startswith(self.start) and written.start.endswith(self.end)
        begins = written.start.startswith(self.start) or self.start.startswith(written.start)
        return begins and (written.end.endswith(self.end) or self.end.endswith(written.end))


def _loop(view: View) -> Iterator[Found]:
    if view.item["kind"] != "Trigger" or not _is_about_objects(view.resource):
        return
    triggers = [one for one in view.result.resources if _is_about_objects(one)]
    way = _way_back(view.resource, triggers)
    if way:
        ring = " -> ".join(one.name for one in (view.resource, *way, view.resource))
        yield ("spec", "result"), f"results may wake each other's triggers for ever: {ring}"


def _is_about_objects(resource: Resource) -> bool:
    return resource.kind == "InferenceTrigger" and bool(parts.s3_source(resource))


def _way_back(origin: Resource, triggers: Sequence[Resource]) -> list[Resource]:
    """Other triggers, each woken by the one before, of which the last wakes `origin` (that a
    trigger wakes itself is prevented by its mark)."""
    ways: list[list[Resource]] = [[]]
    seen = {origin.key}
    while ways:
        way = ways.pop(0)
        last = way[-1] if way else origin
        for one in triggers:
            if not _wakes(last, one):
                continue
            if one is origin and way:
                return way
            if one.key not in seen:
                seen.add(one.key)
                ways.append([*way, one])
    return []


def _wakes(one: Resource, other: Resource) -> bool:
    area = _watched(other)
    return _same_server(one, other) and any(area.may_hold(written) for written in _written(one))


def _taken(view: View) -> Iterator[Found]:
    if view.item["kind"] != "Trigger" or not _is_about_objects(view.resource):
        return
    if not (view.resource.spec.get("result") or {}).get("move"):
        return
    mine = _watched(view.resource)
    moved = _Area([re.escape(name) for name in mine.buckets], mine.start, mine.end)
    for one in view.result.resources:
        if one is view.resource or not _is_about_objects(one):
            continue
        if _same_server(one, view.resource) and _watched(one).may_hold(moved):
            yield ("spec", "result", "move"), f"{one.name} watches some of the same objects"


def _same_server(one: Resource, other: Resource) -> bool:
    return bool(parts.s3_source(one).get("endpoint") == parts.s3_source(other).get("endpoint"))


def _watched(resource: Resource) -> _Area:
    source = parts.s3_source(resource)
    return _Area(parts.buckets(resource), source.get("prefix") or "", source.get("suffix") or "")


def _written(resource: Resource) -> Iterator[_Area]:
    result: Mapping[str, JSON] = resource.spec.get("result") or {}
    for name, usual in (("write", DEFAULT_KEY), ("copy", "{object.key}"), ("move", "{object.key}")):
        place = result.get(name)
        if place is None:
            continue
        pieces = list(_pieces(place.get("key") or usual, parts.s3_source(resource)))
        if ANYTHING not in pieces:
            text = "".join(str(piece) for piece in pieces)
            yield _Area(_patterns(place, resource), text, text, whole=True)
            continue
        first, last = pieces.index(ANYTHING), len(pieces) - pieces[::-1].index(ANYTHING)
        start = "".join(map(str, pieces[:first]))
        yield _Area(_patterns(place, resource), start, "".join(map(str, pieces[last:])))


def _pieces(key: str, source: Mapping[str, JSON]) -> Iterator[str | None]:
    """A key's fixed texts, and ANYTHING between them; the input's key is as watched."""
    for part in template.compile_text(key, "answer").parts:
        if isinstance(part, str):
            yield part
            continue
        if part.text == "object.key":
            yield source.get("prefix") or ""
        yield ANYTHING
        if part.text in ("object.key", "object.name"):
            yield str(source.get("suffix") or "").rpartition("/")[2]


def _patterns(place: Mapping[str, JSON], resource: Resource) -> list[str]:
    if not place.get("bucket"):
        return [re.escape(name) for name in parts.buckets(resource)]
    text = template.compile_text(place["bucket"], "answer")
    return [text.pattern(names.PLACEHOLDER_IN_BUCKET)]


RULES = (
    Rule(
        id="trigger-loop",
        level=Level.WARNING,
        why="A trigger does not wake itself, but two may wake each other; each round asks the"
        " models again, until `maxHops` ends it with a dead letter.",
        remedy="keep results out of the prefixes that other triggers watch",
        check=_loop,
    ),
    Rule(
        id="trigger-takes-input",
        level=Level.WARNING,
        why="Both triggers hear of an upload at once; once one of them has moved it, the other"
        " finds nothing, and its event becomes a dead letter.",
        remedy="let one trigger move, and give the other one its reply event or the place it moves"
        " to; or copy",
        check=_taken,
    ),
)
