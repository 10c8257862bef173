"""A kustomize base of compiled objects: one file per object and the kustomization that lists
them."""

from collections.abc import Sequence
from typing import Any

from knative import emit

JSON = Any


def base(objects: Sequence[dict[str, JSON]]) -> dict[str, str]:
    """File name -> content. Images are listed so that an overlay can replace them by name."""
    files = emit.to_files(objects)
    kustomization: dict[str, JSON] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(files),
    }
    # kustomize rewrites images in containers it knows by schema; Knative's template needs this hint
    config = {
        "images": [
            {
                "path": f"spec/template/spec/{group}/image",
                "kind": "Service",
                "group": "serving.knative.dev",
            }
            for group in ("containers", "initContainers")
        ]
    }
    if any(item["kind"] == "Service" for item in objects):
        kustomization["configurations"] = ["knative-images.yaml"]
        files["knative-images.yaml"] = emit.to_yaml([config])
    files["kustomization.yaml"] = emit.to_yaml([kustomization])
    return files
