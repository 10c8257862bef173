"""The compiled twins of the hot path (see functions/wire/native.py); all else is in pyproject.toml.

They are optional: without a C compiler the installation succeeds, and the Python runs.
"""

import zlib
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent
HEADER = "native.h"


def source_of(name: str) -> Path:
    """Where the C of an extension module is, from the root."""
    return Path(*name.split(".")).with_suffix(".c")


def twin(name: str) -> Extension:
    """An extension module made of the C file of its name; it knows the checksum of its source."""
    source = source_of(name)
    header = Path("functions", "wire", HEADER)
    beside = (
        header.relative_to(source.parent) if source.parent == header.parent else Path("..") / header
    )
    checksum = 0
    for path in (source, header):
        checksum = zlib.crc32((ROOT / path).read_bytes(), checksum)
    return Extension(
        name,
        [str(source)],
        depends=[str(header)],
        include_dirs=[str(header.parent)],
        define_macros=[
            ("_GNU_SOURCE", "1"),
            ("CHECKSUM", f"{checksum}u"),
            ("SOURCES", f'"{source.name} {beside.as_posix()}"'),
        ],
        extra_compile_args=["-Wall", "-Wextra", "-Wno-missing-field-initializers"],
        optional=True,
    )


TWINS = ("functions.wire._http1", "router_fn._hot", "router_fn._json")

# A unit's image is built with only the folders it needs.
setup(ext_modules=[twin(name) for name in TWINS if (ROOT / source_of(name)).exists()])
