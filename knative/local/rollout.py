"""Gradual rollout: how traffic moves from older revisions to the newest, step by step. Pure.

Source: spec section 1.11 (annotation `serving.knative.dev/rollout-duration`). The first step moves
one percent. How long the new revision takes to become reachable sets the smallest step time; from
that follow the number, size and spacing of the remaining steps. Older revisions drain
newest-but-one first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

FIRST_STEP_PERCENT = 1

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Pace:
    """Size of a step in percent, and seconds between steps."""

    size: int
    interval_s: float


@dataclass(slots=True)
class Rollout(Generic[R]):
    """A rollout under way: revisions from oldest to newest with their shares of the traffic."""

    revisions: list[R]
    shares: list[int]
    pace: Pace
    next_at: float

    def advance(self, now: float) -> bool:
        """Make the steps that are due; True when anything changed."""
        changed = False
        while len(self.revisions) > 1 and now >= self.next_at:
            after = step(self.shares, self.pace.size)
            newest = self.revisions[-1]
            # Emptied ones are the newest-but-one first: the oldest stay longest.
            self.revisions = [*self.revisions[: len(after) - 1], newest]
            self.shares = after
            self.next_at += self.pace.interval_s
            changed = True
        return changed


def begin(
    older: Sequence[tuple[R, int]], newest: R, duration_s: float, now: float
) -> Rollout[R] | None:
    """A rollout to `newest` of what the `older` ones have together, its first step made; None
    when there is too little traffic (1 % or less) to move in steps."""
    total = sum(share for _, share in older)
    if duration_s <= 0 or total <= FIRST_STEP_PERCENT:
        return None
    pace = make_pace(total, duration_s, ready_after_s=0.0)
    shares = step([*(share for _, share in older), 0], FIRST_STEP_PERCENT)
    revisions = [*(revision for revision, _ in older)][: len(shares) - 1]
    return Rollout([*revisions, newest], shares, pace, now + pace.interval_s)


def make_pace(percent: int, duration_s: float, ready_after_s: float) -> Pace:
    """Pace of a rollout of `percent` over `duration_s`, when the first step took
    `ready_after_s`."""
    smallest_s = max(1.0, math.ceil(ready_after_s))
    remaining_s = max(1.0, duration_s - smallest_s)
    steps = min(max(1.0, remaining_s / smallest_s), max(1, percent - 1))
    size = math.floor((percent - 1) / steps + 0.5)
    return Pace(size=max(1, size), interval_s=remaining_s / steps)


def step(shares: Sequence[int], size: int) -> list[int]:
    """One step: `shares` from oldest to newest. The newest gains what the older ones lose, the
    newest-but-one first; emptied ones disappear. `[22, 5, 3, 60]` by 10 -> `[20, 70]`."""
    *older, newest = shares
    left = size
    for index in range(len(older) - 1, -1, -1):
        taken = min(left, older[index])
        older[index] -= taken
        left -= taken
        newest += taken
    return [share for share in older if share > 0] + [newest]


def retarget(shares: Sequence[int], percent: int) -> list[int]:
    """The same revisions when their whole share of the traffic changes: growth goes to the
    newest, loss comes from the oldest. `[21, 54]` from 75 to 42 -> `[42]`."""
    if percent <= 0:
        return []
    *older, newest = shares
    difference = percent - sum(shares)
    if difference >= 0:
        return [*older, newest + difference]
    held = list(shares)
    for index, share in enumerate(held):
        taken = min(-difference, share)
        held[index] -= taken
        difference += taken
    return [share for share in held if share > 0]
