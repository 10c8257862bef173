"""Pure functions from a checked source manifest to Knative objects (plain dicts). No I/O, no
clock."""
