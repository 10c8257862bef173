"""Which events a trigger wants: Knative's filter dialects, compiled once to a plain predicate.

`check(spec)` names every problem, `compile_filters(trigger_spec)` gives `Event -> bool`. Pure.
Source: Knative Eventing, Trigger `filters`, and CloudEvents Subscriptions API 1.0, "Filter
Dialects".
"""

from .attributes import Predicate, check, compile_filters, match

__all__ = ["Predicate", "check", "compile_filters", "match"]
