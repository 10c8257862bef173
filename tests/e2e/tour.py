"""The commands of a README, run as printed: in order, in one shell, on free ports."""

import re
import shlex
import subprocess
from pathlib import Path

from tests.e2e import local


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def commands(path: Path) -> list[str]:
    """Lines that begin with `$ ` in blocks marked `console`."""
    lines = [line for block in blocks(path, "console") for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def run(readme: Path, folder: Path, *, path: Path, timeout_s: float = 280) -> str:
    """Everything they printed; each must end with 0. `path`: where `turnout` and `python` are."""
    gateway, other = local.free_port(), local.free_port()
    script = [
        "set -me",
        "trap 'echo FAILED: $BASH_COMMAND >&2' ERR",
        f"cd {shlex.quote(str(local.ROOT))}",
    ]
    for command in commands(readme):
        changed = _with_ports(command, gateway, other)
        if changed.startswith((". .venv", "export PATH=")):  # wherever the programs live
            changed = f'export PATH={shlex.quote(str(path))}:"$PATH"'
        script += [f"echo {shlex.quote('$ ' + command)}", changed]
    script_file = folder / "tour.sh"
    script_file.write_text("\n".join(script) + "\n")
    try:
        done = subprocess.run(
            ["bash", script_file],
            env=local.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    finally:
        local.turnout("down", "--port", str(gateway))
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert "Traceback" not in text
    return text


def _with_ports(command: str, gateway: int, other: int) -> str:
    command = re.sub(
        r"^turnout (up|ps|invoke|logs|down|status)", rf"turnout \1 --port {gateway}", command
    )
    return command.replace(":8080", f":{gateway}").replace("8081", str(other))
