"""Finding and reading pods' log files; shared by the admin API and `turnout logs`. Reads only."""

from pathlib import Path

_BLOCK = 64 * 1024


def find(folder: Path, *, pod: str = "", container: str = "", previous: bool = False) -> list[Path]:
    """Log files of a service's pods, oldest pod first. Without `pod`: those of the newest pod,
    or with `previous` of the one before it. `pod` may be the end of a name."""
    try:
        pods = sorted(
            (path for path in folder.iterdir() if path.is_dir()),
            key=lambda path: path.stat().st_ctime,
        )
    except OSError:
        return []
    if pod:
        pods = [path for path in pods if path.name == pod or path.name.endswith(pod)]
    elif previous:
        pods = pods[-2:-1]
    else:
        pods = pods[-1:]
    files = [file for path in pods for file in path.glob("*.log")]
    files.sort(key=lambda file: file.stat().st_mtime)
    return [file for file in files if not container or file.stem == container]


def describe(file: Path, lines: int) -> dict[str, object]:
    """Path, size and last lines; `size` is where following goes on without a gap."""
    found, size = _tail(file, lines)
    return {"path": str(file), "size": size, "lines": found}


def tail(file: Path, lines: int) -> list[str]:
    """The last lines of a file, without reading all of it."""
    return _tail(file, lines)[0]


def _tail(file: Path, lines: int) -> tuple[list[str], int]:
    try:
        with file.open("rb") as handle:
            size = position = handle.seek(0, 2)
            data = b""
            while position > 0 and data.count(b"\n") <= lines:
                step = min(_BLOCK, position)
                position -= step
                handle.seek(position)
                data = handle.read(step) + data
    except OSError:
        return [], 0
    data = data[: size - position]  # the file may have grown meanwhile
    return (data.decode(errors="replace").splitlines()[-lines:] if lines > 0 else []), size
