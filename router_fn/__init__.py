"""The graph router: one HTTP endpoint in, an inference graph run, one answer out.

`python -m router_fn` serves a graph (docs/graph.md). As a library: `router_fn.graph.check(spec)`
validates one, `router_fn.plan` and `router_fn.engine` run one over any transport. Importing this
package loads nothing.
"""
