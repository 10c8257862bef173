"""Services and their revisions: what exists, what a changed manifest does, where traffic goes.

A changed template makes a new revision. If the service was already there, the new revision has to
prove itself with one ready pod before traffic moves (at once, or step by step with
rollout-duration); the old one then drains and goes. A revision that never becomes ready leaves the
old one serving, as in Knative.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any

from . import rollout, spec, traffic, workload
from .clock import Clock
from .pods import Pod
from .revision import Revision
from .state import StateDir

logger = logging.getLogger(__name__)

KEEP_REVISIONS = 20
"""Generations remembered per service, for `spec.traffic[].revisionName`."""

MakeRevision = Callable[[spec.Service, str, int], Revision]


class ServiceState:
    """One service: its revisions and its route."""

    def __init__(self, service: spec.Service) -> None:
        self.service = service
        self.revisions: dict[str, Revision] = {}
        self.latest: Revision = None  # type: ignore[assignment]  # set before anyone looks
        """The newest revision."""
        self.serving: Revision = None  # type: ignore[assignment]
        """The newest revision that traffic for "latest" goes to."""
        self.rollout: rollout.Rollout[Revision] | None = None
        """Gradual move of the traffic for "latest"; None when there is none under way."""
        self.problem = ""
        """Why the route is not what the manifest says."""


class Services:
    """All services of an engine. `apply` reconciles; `routes` is what the gateway looks hosts up
    in."""

    def __init__(
        self,
        state: StateDir,
        make_revision: MakeRevision,
        report: Callable[[str, str], None],
        clock: Clock,
    ) -> None:
        self.by_key: dict[str, ServiceState] = {}
        self.routes: dict[str, traffic.Route[Revision]] = {}
        self._state = state
        self._make_revision = make_revision
        self._report = report
        self._clock = clock
        self._remembered = state.load_revisions()

    def revisions(self) -> Iterable[Revision]:
        """Every revision of every service."""
        for held in self.by_key.values():
            yield from held.revisions.values()

    def apply(self, services: Iterable[spec.Service]) -> list[Revision]:
        """Make what runs equal to `services`; returns revisions of removed services, to be
        stopped."""
        wanted = {service.key: service for service in services}
        removed: list[Revision] = []
        for key in [key for key in self.by_key if key not in wanted]:
            removed.extend(self.by_key.pop(key).revisions.values())
            self._report(key, "removed")
        for key, service in wanted.items():
            self._apply_one(key, service)
        self._state.save_revisions(self._remembered)
        self.refresh()
        return removed

    def _apply_one(self, key: str, service: spec.Service) -> None:
        held = self.by_key.get(key)
        if held is None:
            held = self.by_key[key] = ServiceState(service)
            held.latest = held.serving = self._revision(held, service)
            return
        changed = held.service.fingerprint != service.fingerprint
        held.service = service
        for revision in held.revisions.values():
            revision.update(service)
        if changed:
            held.latest = self._revision(held, service)
            self._report(key, f"new revision {held.latest.name}")
            held.latest.prove()

    def _revision(self, held: ServiceState, service: spec.Service) -> Revision:
        """The revision for the service's present template: known from before, or the next
        generation."""
        known = self._remembered.setdefault(service.key, [])
        entry: dict[str, Any]
        if known and known[-1].get("fingerprint") == service.fingerprint:
            entry = known[-1]
        else:
            generation = int(known[-1]["generation"]) + 1 if known else 1
            entry = {
                "name": service.template.name or f"{service.name}-{generation:05d}",
                "generation": generation,
                "fingerprint": service.fingerprint,
                "template": service.raw_template,
            }
            known.append(entry)
            del known[:-KEEP_REVISIONS]
        revision = self._make_revision(service, str(entry["name"]), int(entry["generation"]))
        revision.on_ready = self._proved
        held.revisions[revision.name] = revision
        return revision

    def _proved(self, revision: Revision, _: Pod) -> None:
        """A pod of some revision became ready: if it is the latest, traffic may move there."""
        held = self.by_key.get(revision.service.key)
        if held is not None and held.latest is revision and held.serving is not revision:
            previous, held.serving = held.serving, revision
            under_way = held.rollout
            older = (
                list(zip(under_way.revisions, under_way.shares, strict=True))
                if under_way
                else [(previous, latest_percent(held.service))]
            )
            now = self._clock.now()
            held.rollout = rollout.begin(older, revision, held.service.rollout_s, now)
            how = f" over {held.service.rollout_s:g} s" if held.rollout else ""
            self._report(held.service.key, f"traffic moves {previous.name} -> {revision.name}{how}")
            self.refresh()

    def tick(self) -> None:
        """Every second: steps of rollouts that are due."""
        now, changed = self._clock.now(), False
        for held in self.by_key.values():
            if held.rollout is not None and held.rollout.advance(now):
                changed = True
                if len(held.rollout.revisions) == 1:
                    held.rollout = None
                    self._report(held.service.key, f"all traffic is at {held.serving.name}")
        if changed:
            self.refresh()

    def _named(self, held: ServiceState, name: str) -> Revision | None:
        """A revision that traffic names: running, or brought back from memory."""
        if name in held.revisions:
            return held.revisions[name]
        for entry in self._remembered.get(held.service.key, ()):
            if entry.get("name") == name:
                document = {
                    "apiVersion": "serving.knative.dev/v1",
                    "kind": "Service",
                    "metadata": {"name": held.service.name, "namespace": held.service.namespace},
                    "spec": {"template": entry.get("template") or {}},
                }
                service = workload.parse([document]).services[0]
                revision = self._make_revision(service, name, int(entry["generation"]))
                held.revisions[name] = revision
                return revision
        return None

    def refresh(self) -> None:
        """Compute all routes anew, and which revisions any of them reaches."""
        routes: dict[str, traffic.Route[Revision]] = {}
        for held in self.by_key.values():
            self._route(held, routes)
        self.routes.clear()
        self.routes.update(routes)

    def _route(self, held: ServiceState, routes: dict[str, traffic.Route[Revision]]) -> None:
        service = held.service
        shares: list[tuple[Revision, int]] = []
        tags: dict[str, Revision] = {}
        held.problem = ""
        moving = self._moving(held)
        for target in service.traffic:
            if not target.revision and moving:
                shares.extend(moving)
                moving = []
                if target.tag:
                    tags[target.tag] = held.serving
                continue
            revision = self._named(held, target.revision) if target.revision else held.serving
            if revision is None:
                held.problem = f"traffic names revision {target.revision}, which is not known here"
                self._report(service.key, held.problem)
                revision = held.serving
            shares.append((revision, target.percent))
            if target.tag:
                tags[target.tag] = revision
        split = traffic.make_split(shares)
        reached = {*split.revisions, *tags.values()}
        for revision in held.revisions.values():
            revision.reachable = revision in reached or revision is held.latest
        for host in traffic.hosts(service.name, service.namespace):
            routes[host] = traffic.Route(service.key, split, tags)
        for tag, revision in tags.items():
            only = traffic.make_split([(revision, 100)])
            for host in traffic.hosts(service.name, service.namespace, tag):
                routes[host] = traffic.Route(service.key, only, {})

    def _moving(self, held: ServiceState) -> list[tuple[Revision, int]]:
        """Shares of a rollout, if one is under way and still about the same percentage."""
        if held.rollout is None:
            return []
        if sum(held.rollout.shares) != latest_percent(held.service):
            held.rollout = None  # the manifest changed its mind: no more steps
            return []
        return list(zip(held.rollout.revisions, held.rollout.shares, strict=True))

    def collect(self) -> list[Revision]:
        """Forget revisions that nothing reaches and that have no pod left; returns them."""
        gone: list[Revision] = []
        for held in self.by_key.values():
            for name, revision in list(held.revisions.items()):
                if not revision.reachable and not revision.pods and not revision.concurrency:
                    del held.revisions[name]
                    gone.append(revision)
        return gone


def latest_percent(service: spec.Service) -> int:
    """How much of the traffic goes to the latest revision, whichever that is."""
    return sum(target.percent for target in service.traffic if not target.revision)
