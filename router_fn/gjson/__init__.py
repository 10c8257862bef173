"""GJSON 1.18.0 path lookup on bytes, without decoding the document.

`Path(text)` is compiled once; `exists(document, path)` answers whether it finds anything.
"""

from .evaluate import Exhausted, Work, find
from .paths import Path

__all__ = ["Exhausted", "Path", "Work", "exists", "find"]


def exists(document: bytes, path: Path) -> bool:
    """Whether the path finds a value; a lookup that has to be given up finds nothing."""
    try:
        return find(document, path) is not None
    except Exhausted:
        return False
