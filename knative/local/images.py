"""Running a container's image with docker or podman, when asked for. Pure: makes words.

Processes are the rule here; images are for code that exists nowhere else (`up --container-engine
docker`). Our own images and mapped ones still run as processes. The container shares this
machine's network, so ports, gateway and proxy work as for a process; volumes are bind mounts at
their real paths.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from . import spec

ENGINES = ("docker", "podman")
LABEL = "turnout.engine"
OWN_PREFIXES = ("dev.local/",)
"""Images that are never pulled: their programs are installed here."""


def runs_in_image(container: spec.Container, engine: str, mapped: Mapping[str, object]) -> bool:
    """Whether a container runs from its image rather than as a process."""
    own = container.image.startswith(OWN_PREFIXES) or container.image in mapped
    return bool(engine and container.image) and not own


def container_name(pod: str, container: str) -> str:
    return f"turnout-{pod}-{container}"


def run_words(
    engine: str,
    container: spec.Container,
    *,
    pod: str,
    engine_id: str,
    env: Mapping[str, str],
    arguments: Sequence[str],
    volumes: Mapping[str, Path],
) -> list[str]:
    """`docker run ...`. Variables are passed by name only (`-e NAME`): their values come from
    the environment of the client process and never appear in a process listing."""
    words = [engine, "run", "--rm", "--init", "--network=host", "--pull=missing"]
    words += ["--name", container_name(pod, container.name), "--label", f"{LABEL}={engine_id}"]
    for name in sorted(env):
        words += ["-e", name]
    for mount in container.mounts:
        source = volumes[mount.volume] / mount.sub_path
        words += ["-v", f"{source.resolve()}:{mount.path}{':ro' if mount.read_only else ''}"]
    if container.working_dir:
        words += ["-w", container.working_dir]
    limits = container.resources
    if limits.memory_limit:
        words += ["--memory", str(limits.memory_limit)]
    if limits.cpu_limit_m:
        words += ["--cpus", f"{limits.cpu_limit_m / 1000:g}"]
    if not container.command:
        return [*words, container.image, *arguments]
    program, *rest = arguments
    return [*words, "--entrypoint", program, container.image, *rest]


def remove_words(engine: str, names: Sequence[str]) -> list[str]:
    """Remove containers by force; for those whose client had to be killed."""
    return [engine, "rm", "--force", *names]


def leftovers_words(engine: str, engine_id: str) -> list[str]:
    """Lists containers that a killed engine left behind."""
    return [engine, "ps", "--all", "--quiet", "--filter", f"label={LABEL}={engine_id}"]
