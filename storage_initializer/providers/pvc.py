"""`pvc://claim/path`: mounted by the compiler; here it is only verified.

A claim is a volume of the pod, not something a container can fetch. The destination must be the
mount, readable and not empty; nothing is copied and nothing is written.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from storage_initializer.context import Context
from storage_initializer.errors import AccessDenied, NotFound
from storage_initializer.items import Item, VerifiedSource
from storage_initializer.uri import Uri


def connect(uri: Uri, context: Context) -> "ClaimSource":
    return ClaimSource(uri)


class ClaimSource(VerifiedSource):
    """Nothing to list: `verify` is all there is."""

    filtered = False

    def __init__(self, uri: Uri) -> None:
        self.shown = uri.shown

    def items(self) -> Iterator[Item]:
        raise NotFound(self.shown, "a claim cannot be fetched together with other sources")

    def verify(self, dest: Path) -> None:
        """Raises NotFound or AccessDenied unless `dest` is a readable, non-empty directory."""
        if not dest.is_dir():
            raise NotFound(self.shown, f"{dest} is no directory: the claim is not mounted there")
        try:
            empty = not os.listdir(dest)
        except PermissionError as exc:
            raise AccessDenied(self.shown, str(exc), "check the volume's fsGroup") from exc
        if empty:
            raise NotFound(self.shown, f"the claim mounted at {dest} is empty")
