"""The photographs: real ones that come with scikit-image and scikit-learn, or a person's own."""

import base64
import filecmp
import importlib.util
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from knative import errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One photograph on disk."""

    title: str
    """What a person sees in it: `a cat`."""
    path: Path
    origin: str

    def request_body(self) -> bytes:
        """The request of KServe's tutorial: the file, base64, in `instances[0].data`."""
        data = base64.b64encode(self.path.read_bytes()).decode()
        return json.dumps({"instances": [{"data": data}]}).encode()

    def copied_to(self, folder: Path) -> "Picture":
        """The same picture in `folder`, where a person finds it to try things with."""
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{self.title.split()[-1]}{self.path.suffix}"
        # Another demo may be reading the copy: leave it alone if it is right.
        if not target.is_file() or not filecmp.cmp(self.path, target, shallow=False):
            shutil.copyfile(self.path, target)
        return replace(self, path=target)


def _installed(package: str, distribution: str, inside: str) -> Path:
    """A file of an installed package, found without importing the package (a second or more)."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise errors.TurnoutError(
            f"the demo's photographs come with {distribution}, which is not installed;"
            " `pip install 'turnout[demo]'` brings everything the demo needs"
        )
    path = Path(spec.submodule_search_locations[0], inside)
    if not path.is_file():
        raise errors.TurnoutError(f"{distribution} is installed but has no {inside}")
    return path


def cat() -> Picture:
    """Chelsea, the cat of scikit-image (451 x 300 PNG)."""
    path = _installed("skimage", "scikit-image", "data/chelsea.png")
    return Picture(title="a cat", path=path, origin="scikit-image")


def flower() -> Picture:
    """The flower of scikit-learn's sample images (640 x 427 JPEG)."""
    path = _installed("sklearn", "scikit-learn", "datasets/images/flower.jpg")
    return Picture(title="a flower", path=path, origin="scikit-learn")


def temple() -> Picture:
    """A Chinese temple of scikit-learn's sample images: neither animal nor plant."""
    path = _installed("sklearn", "scikit-learn", "datasets/images/china.jpg")
    return Picture(title="a temple", path=path, origin="scikit-learn")


def horse() -> Picture:
    """The silhouette of a horse, of scikit-image: four legs, so the dog-or-cat model says `dog`."""
    path = _installed("skimage", "scikit-image", "data/horse.png")
    return Picture(title="the silhouette of a horse", path=path, origin="scikit-image")
