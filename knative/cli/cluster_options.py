"""The options that every verb that talks to a cluster has."""

import argparse

from knative.cluster import client


def add(parser: argparse.ArgumentParser, *, namespace: bool = True) -> None:
    """Add them to a parser."""
    group = parser.add_argument_group("cluster")
    group.add_argument("--context", default="", metavar="NAME", help="context of the kubeconfig")
    group.add_argument("--kubeconfig", default="", metavar="FILE", help="default: $KUBECONFIG")
    if namespace:
        group.add_argument("-n", "--namespace", default="", help="default: the context's")


def connect(args: argparse.Namespace) -> client.Api:
    """The cluster the options mean."""
    return client.connect(
        context=args.context, kubeconfig=args.kubeconfig, namespace=getattr(args, "namespace", "")
    )
