"""Seldon graphs: the orchestrator of a SeldonDeployment, on the router's engine and transport.

`graph` is the grammar, `traversal` says what happens to a request, `builtins` are the
units without a service, `messages` reads and edits bodies, `tfserving` converts between
SeldonMessages and TensorFlow Serving's REST, `paths`, `front` and `work` are the HTTP surface,
`service` is the process.
"""
