"""The inference path of a SeldonDeployment, by protocol (spec/seldon_tfserving 1.9)."""

from knative import names
from knative.api import seldon_words as words
from knative.api.resource import Resource


def inference_path(resource: Resource) -> str:
    """Seldon's `address.url` without the host: what other graphs call."""
    root = resource.spec["predictors"][0]["graph"]["name"]
    protocol = words.protocol_of(resource.spec)
    if protocol == "seldon":
        return "/api/v1.0/predictions"
    return names.predict_path(root, "v2" if protocol == "v2" else "v1")
