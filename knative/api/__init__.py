"""Source grammars: reading YAML with positions, field tables per kind, validation that reports all
problems.

Nothing here makes output; that is `knative.resources`.
"""
