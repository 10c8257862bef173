"""A kustomize base of compiled objects: one file per object and the kustomization that lists
them."""

from collections.abc import Sequence
from typing import Any

from knative import emit

JSON = Any


def base(objects: Sequence[dict[str, JSON]]) -> dict[str, str]:
    """File name -> content. Overlays can replace images by name: kustomize looks into pod
    templates."""
    files = emit.to_files(objects)
    kustomization: dict[str, JSON] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(files),
    }
    return {**files, "kustomization.yaml": emit.to_yaml([kustomization])}
