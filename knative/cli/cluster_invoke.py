"""`turnout invoke NAME --cluster`: the same request, to a Service of a cluster."""

import argparse
import time

from knative import errors
from knative.cli import cluster_options
from knative.cluster import client, forward, reach
from knative.cluster.errors import NotFound


def add(parser: argparse.ArgumentParser) -> None:
    """The options that turn a local verb to a cluster."""
    group = parser.add_argument_group("cluster instead of the local engine")
    group.add_argument("--cluster", action="store_true", help="a Service of a cluster")
    group.add_argument("--context", default="", metavar="NAME", help="context of the kubeconfig")
    group.add_argument("--kubeconfig", default="", metavar="FILE", help="default: $KUBECONFIG")


def add_ways(parser: argparse.ArgumentParser) -> None:
    """How to reach it."""
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--ingress",
        default="",
        metavar="ADDRESS",
        help="with --cluster: HOST[:PORT] of the ingress",
    )
    way.add_argument(
        "--port-forward",
        action="store_true",
        help="with --cluster: through the API server to the ingress gateway's pod",
    )


def request(
    args: argparse.Namespace,
    name: str,
    namespace: str,
    body: bytes | None,
    headers: dict[str, str],
) -> tuple[reach.Answer, str, float]:
    """Send it; (answer, method and URL for the user, milliseconds)."""
    api = cluster_options.connect(args)
    item = api.get("Service", namespace or api.namespace, name)
    method = args.method or ("POST" if body is not None else "GET")
    path = args.path or default_path(item, has_body=body is not None)
    started = time.monotonic()
    if args.port_forward:
        answer = _forwarded(api, item, method, path, headers, body, args.timeout)
    else:
        target = reach.through(item, args.ingress) if args.ingress else reach.direct(item)
        answer = reach.call(target, method, path, headers, body, timeout_s=args.timeout)
    return answer, f"{method} {reach.host_of(item)}{path}", (time.monotonic() - started) * 1000


def _forwarded(
    api: client.Api,
    item: client.Object,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes | None,
    timeout_s: float,
) -> reach.Answer:
    host = reach.host_of(item)
    namespace, pod, port = reach.gateway_pod(api, cluster_local=reach.is_cluster_local(host))
    connection = forward.ForwardedConnection(api, namespace, pod, port, timeout_s=timeout_s)
    return reach.exchange(connection, host, method, path, headers, body)


def default_path(item: client.Object, *, has_body: bool) -> str:
    """/ for graphs, the V1 predict path for a model server of ours."""
    labels = item["metadata"].get("labels") or {}
    model = labels.get("serving.kserve.io/inferenceservice")
    return f"/v1/models/{model}:predict" if model and has_body else "/"


def logs(args: argparse.Namespace, name: str, namespace: str) -> int:
    """`turnout logs NAME --cluster`."""
    from knative.cluster import logs as pod_logs

    api = cluster_options.connect(args)
    namespace = namespace or api.namespace
    try:
        sources = pod_logs.sources(api, namespace, name, container=args.container)
    except NotFound as error:
        raise errors.TurnoutError(f"no Service {name} in namespace {namespace}") from error
    for source in sources:
        if len(sources) > 1:
            print(f"==> {source.pod} {source.container} <==")
        if args.follow and source is sources[-1]:
            for line in pod_logs.follow(api, namespace, source, tail=args.tail):
                print(line, flush=True)
            break
        for line in pod_logs.read(api, namespace, source, tail=args.tail, previous=args.previous):
            print(line)
    return 0
