"""The Kubernetes door: applying compiled objects, watching them come up, asking what runs.

Only this package imports `kubernetes`, and only `client` and `forward` do. Everything else works
on plain
dicts through `client.Api`, so tests drive it against a fake API server over real HTTP.
"""
