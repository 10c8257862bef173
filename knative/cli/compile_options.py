"""The options that every verb that compiles has."""

import argparse

from knative import errors
from knative.options import DEFAULT_IMAGE_PREFIX, UNITS, CompileOptions, Profile


def add(parser: argparse.ArgumentParser, *, namespace: str = "default") -> None:
    """Add them to a parser; `namespace` is the default of --namespace ("": the cluster
    context's)."""
    parser.add_argument(
        "--profile",
        choices=[p.value for p in Profile],
        default=Profile.INIT.value,
        help="how models arrive: by init container (default), or fetched by the server itself",
    )
    parser.add_argument("-n", "--namespace", default=namespace, help="for manifests that name none")
    parser.add_argument(
        "--image-prefix",
        default=DEFAULT_IMAGE_PREFIX,
        metavar="PREFIX",
        help="registry and path of our images (default: %(default)s)",
    )
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="UNIT=REF",
        help="one image in full: functions=ghcr.io/me/functions@sha256:…; per runtime:"
        " functions-pytorch=…",
    )
    parser.add_argument(
        "--stock-runtimes",
        action="store_true",
        help="serve with KServe's stock containers instead of Turnout's server",
    )
    parser.add_argument(
        "--image-volume", action="store_true", help="mount oci:// models as image volumes"
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse Turnout's extensions to KServe's grammar"
    )


def read(args: argparse.Namespace) -> CompileOptions:
    """The parsed options; raises UsageError for a bad --image."""
    images: dict[str, str] = {}
    for text in args.image:
        unit, sign, reference = text.partition("=")
        known = unit in UNITS or unit.startswith("functions-")
        if not (sign and reference and known):
            raise errors.UsageError(
                f"--image {text}: write UNIT=REF with UNIT one of {', '.join(UNITS)}"
            )
        images[unit] = reference
    return CompileOptions(
        profile=Profile(args.profile),
        namespace=args.namespace,
        image_prefix=args.image_prefix.rstrip("/"),
        images=images,
        stock_runtimes=args.stock_runtimes,
        image_volume=args.image_volume,
        strict=args.strict,
    )
