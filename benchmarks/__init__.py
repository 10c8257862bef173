"""Ratio benchmarks: everything is measured against a peer, in the same run, on the same core.

    python -m benchmarks              all
    python -m benchmarks router       one unit's
    python -m benchmarks --quick      short rounds, to see that they run

A module here has a `TITLE`, and `run(options) -> list[Row]` (see `harness`). Its section of
RESULTS.md is rewritten.
"""
