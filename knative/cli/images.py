"""`turnout images`: build the units' container images from a checkout, and say how large they
are."""

import argparse
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from knative import errors
from knative.options import DEFAULT_IMAGE_PREFIX, VERSION

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "functions": "functions",
    "router-fn": "router_fn",
    "storage-initializer": "storage_initializer",
    "events": "events",
}
"""Image name -> folder with its Dockerfile."""

BUILDERS = ("docker", "podman", "buildah")
"""Tried in this order."""

EPILOG = """\
examples:
  turnout images                          dev.local/turnout/…, for a cluster on this machine
  turnout images --image-prefix registry.example.com/ml --push
  turnout images --unit functions --name functions-sklearn --build-arg EXTRAS=functions,sklearn
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image to build."""

    reference: str
    dockerfile: Path
    build_args: Sequence[str] = ()


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.description = "Build the container images with docker, podman or buildah."
    parser.epilog = EPILOG
    parser.add_argument(
        "--unit", action="append", choices=tuple(FOLDERS), help="only these (repeatable)"
    )
    parser.add_argument("--name", default="", help="another image name, with one --unit")
    parser.add_argument("--image-prefix", default=DEFAULT_IMAGE_PREFIX, metavar="PREFIX")
    parser.add_argument("--tag", default=VERSION)
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--builder", choices=BUILDERS, help="default: the first that is installed")
    parser.add_argument("--push", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Build, push if asked, report sizes."""
    builder = args.builder or next((b for b in BUILDERS if shutil.which(b)), "")
    if not builder:
        raise errors.TurnoutError(f"none of {', '.join(BUILDERS)} is installed")
    if args.name and len(args.unit or ()) != 1:
        raise errors.UsageError("--name needs exactly one --unit")
    for image in images(args):
        if not image.dockerfile.exists():
            raise errors.TurnoutError(
                f"{image.dockerfile} is missing: images are built from a checkout"
            )
        _call(build_command(builder, image))
        if args.push:
            _call([builder, "push", image.reference])
        print(f"{image.reference}  {_size(builder, image.reference)}")
    return 0


def images(args: argparse.Namespace) -> list[Image]:
    """What the options ask for."""
    return [
        Image(
            reference=f"{args.image_prefix.rstrip('/')}/{args.name or unit}:{args.tag}",
            dockerfile=ROOT / FOLDERS[unit] / "Dockerfile",
            build_args=args.build_arg,
        )
        for unit in args.unit or FOLDERS
    ]


def build_command(builder: str, image: Image) -> list[str]:
    """The builder's command line; all three take the same words."""
    words = [builder, "build", "--file", str(image.dockerfile), "--tag", image.reference]
    for argument in image.build_args:
        words += ["--build-arg", argument]
    return [*words, str(ROOT)]


def _call(words: Sequence[str]) -> None:
    done = subprocess.run(words, check=False)
    if done.returncode:
        raise errors.TurnoutError(f"`{' '.join(words)}` ended with {done.returncode}")


def _size(builder: str, reference: str) -> str:
    """Size as stored by the builder; empty when it cannot say."""
    words = [builder, "image", "inspect", "--format", "{{.Size}}", reference]
    if builder == "buildah":
        words = [builder, "images", "--format", "{{.Size}}", reference]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    text = done.stdout.strip()
    return f"{int(text) / 2**20:.0f} MiB" if text.isdigit() else text
