"""What `turnout up` was told, and what of the developer's environment pods may see.

The environment is read here and nowhere else in the engine. A pod gets a small, named part of it,
so that what works here works in a cluster: containers see paths and certificates, init containers
(which fetch models) also see storage credentials, and nobody sees the rest.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .scaling import Defaults

POD_VARIABLES = (
    "HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES",
    "PYTHONDONTWRITEBYTECODE",
)  # fmt: skip
"""Variables every container inherits (PATH comes on top, with this interpreter's directory
first).
"""

CREDENTIAL_PREFIXES = ("AWS_", "AZURE_", "S3_", "HF_", "GOOGLE_APPLICATION_", "STORAGE_", "GIT_")
"""Prefixes of variables that init containers inherit too; a service account does this in a
cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """One engine: `turnout up`."""

    port: int = 8080
    """TCP port of the gateway; 0 lets the system choose."""
    host: str = "127.0.0.1"
    """Address of the gateway. Anything but loopback lets other machines run your services."""
    state_dir: Path = Path(".turnout/8080")
    root: Path = Path()
    """Working directory of containers whose image has none that exists here."""
    mirrors: Sequence[str] = ()
    """`FROM=TO` prefixes for storage URIs (STORAGE_MIRRORS of the init containers)."""
    claims: Mapping[str, Path] = field(default_factory=dict)
    """Persistent volume claim -> directory; others get one under the state directory."""
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Image -> command, for containers without one."""
    extra_env: Mapping[str, str] = field(default_factory=dict)
    """`--env NAME=VALUE` for every container, stronger than the manifest."""
    defaults: Defaults = field(default_factory=Defaults)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The developer's environment, filtered by `pod_environment`. Hidden: it holds credentials."""
    stop_grace_s: float = 10.0
    """`Ctrl-C`: how long requests and processes get to finish before SIGKILL."""
    cpu_overcommit: float = 4.0
    """Sum of CPU requests that further pods may reach, as a multiple of this machine's CPUs."""
    memory_reserve: int = 256 * 1024 * 1024
    """Bytes of memory that pods must leave free."""
    max_header_bytes: int = 64 * 1024
    max_pending: int = 10_000
    """Requests that may wait for one revision (Knative's activator queue)."""
    container_engine: str = ""
    """`docker` or `podman`: run images with it instead of commands. Empty: processes."""
    broker_max_pending: int = 1_000_000
    trace_size: int = 500
    """Requests that the console remembers."""


def process_environ() -> dict[str, str]:
    """The developer's environment."""
    return dict(os.environ)


def pod_environment(environ: Mapping[str, str], *, credentials: bool) -> dict[str, str]:
    """What a container inherits; `credentials` for init containers."""
    chosen = {name: environ[name] for name in POD_VARIABLES if name in environ}
    if credentials:
        chosen.update(
            (name, value) for name, value in environ.items() if name.startswith(CREDENTIAL_PREFIXES)
        )
    programs = os.path.dirname(sys.executable)
    chosen["PATH"] = programs + os.pathsep + environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    return chosen
