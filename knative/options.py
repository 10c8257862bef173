"""What the user can choose about a compilation, apart from the manifests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

VERSION = "0.1.0"
"""Version of Turnout; the default tag of its images."""

UNITS = ("functions", "router-fn", "storage-initializer", "events")
"""Programs that have an image, by image name."""

DEFAULT_IMAGE_PREFIX = "dev.local/turnout"
"""Images built by `make images`. Knative does not ask a registry about `dev.local` (no digest
lookup)."""


class Profile(StrEnum):
    """How a model's files reach its server."""

    INIT = "init"
    """An init container fetches before the server starts; needs a Knative flag."""
    STOCK = "stock"
    """The server process fetches before it turns ready; needs no flag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOptions:
    """Choices for one compilation; the defaults are what `turnout compile FILE` does."""

    profile: Profile = Profile.INIT
    namespace: str = "default"
    """Namespace of manifests that name none."""
    image_prefix: str = DEFAULT_IMAGE_PREFIX
    """Registry and path in front of our images."""
    tag: str = VERSION
    """Tag of our images."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Full references by unit (`functions`) or unit and runtime (`functions-pytorch`); they win."""
    stock_runtimes: bool = False
    """Serve known formats with KServe's stock containers instead of our own server."""
    image_volume: bool = False
    """Mount `oci://` models as image volumes instead of fetching them."""
    strict: bool = False
    """Refuse Turnout's extensions, for manifests that must stay portable."""

    def image(self, unit: str, runtime: str = "") -> str:
        """The image reference of a unit, the most specific choice first."""
        if runtime and (given := self.images.get(f"{unit}-{runtime}")):
            return given
        return self.images.get(unit) or f"{self.image_prefix}/{unit}:{self.tag}"
