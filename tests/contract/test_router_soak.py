"""Under fire: many clients, an upstream that is killed and comes back. `ROUTER_SOAK_SECONDS` makes
it longer."""

import asyncio
import os

from benchmarks import _soak


def test_answers_stay_right_and_nothing_stays_behind() -> None:
    seconds = float(os.environ.get("ROUTER_SOAK_SECONDS", "4"))
    idle, busy = (1000, 256) if seconds > 30 else (200, 64)
    outcome = asyncio.run(_soak.soak(seconds, idle, busy))
    assert outcome.wrong == 0
    assert outcome.good > busy
    assert outcome.failed > 0, "the upstream never died: nothing was tested"
    assert outcome.idle_lost == 0
    assert outcome.descriptors_after <= outcome.descriptors_before
    assert outcome.rss_mib_after < outcome.rss_mib_before + 30
