"""Every command of README.md works as printed, in order, in one shell.

Blocks marked `console` are run (`$ ` lines); blocks marked `sh` need a cluster or are other tests'
(`make demo`, `make test`), and may only contain such commands. Ports are replaced by free ones, so
that the test disturbs nobody.
"""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.e2e import local

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

NOT_RUN = re.compile(r"make (demo|test|install)|kn |turnout (compile|apply) |kubectl |$")


def _blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def _commands(path: Path) -> list[str]:
    lines = [line for block in _blocks(path, "console") for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def _with_ports(command: str, gateway: int, other: int) -> str:
    command = re.sub(
        r"^turnout (up|ps|invoke|logs|down|status)", rf"turnout \1 --port {gateway}", command
    )
    return command.replace(":8080", f":{gateway}").replace("8081", str(other))


def test_every_command_of_the_tour_works_in_order(demo_output: str, tmp_path: Path) -> None:
    commands = _commands(local.ROOT / "README.md")
    assert len(commands) >= 15
    gateway, other = local.free_port(), local.free_port()
    script = [
        "set -e",
        "trap 'echo FAILED: $BASH_COMMAND >&2' ERR",
        f"cd {shlex.quote(str(local.ROOT))}",
    ]
    for command in commands:
        changed = _with_ports(command, gateway, other)
        if changed.startswith(". .venv"):  # the test's own interpreter, wherever it lives
            changed = f'export PATH={shlex.quote(str(local.TURNOUT.parent))}:"$PATH"'
        script += [f"echo {shlex.quote('$ ' + command)}", changed]
    script_file = tmp_path / "tour.sh"
    script_file.write_text("\n".join(["set -m", *script]) + "\n")
    try:
        done = subprocess.run(
            ["bash", script_file],
            env=local.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
    finally:
        local.turnout("down", "--port", str(gateway))
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert "Traceback" not in text
    assert text.count("It's a cat!") == 2, text
    assert "daisy" in text
    assert "Hello, Ada!" in text


def test_what_is_not_run_needs_a_cluster_or_is_another_tests() -> None:
    for readme in [local.ROOT / "README.md", *local.EXAMPLES.glob("*/README.md")]:
        for block in _blocks(readme, "sh"):
            for line in block.splitlines():
                if readme.parent == local.ROOT:
                    assert NOT_RUN.match(line), f"{readme}: {line}"


@pytest.mark.parametrize(
    "readme",
    [local.ROOT / "README.md", *local.EXAMPLES.glob("*/README.md")],
    ids=lambda path: path.parent.name,
)
def test_links_lead_somewhere(readme: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", readme.read_text()):
        if not target.startswith("http"):
            assert (readme.parent / target).exists(), target


@pytest.mark.parametrize("pipeline", ["dog-breed", "animal-plant"])
def test_the_examples_own_commands_parse(pipeline: str) -> None:
    """Their `turnout compile` lines compile; the rest is the tour's."""
    readme = local.EXAMPLES / pipeline / "README.md"
    lines = [line for block in _blocks(readme, "sh") for line in block.splitlines()]
    compiles = [line.partition(" | ")[0] for line in lines if line.startswith("turnout compile")]
    assert len(compiles) >= 2
    for line in compiles:
        command = line.replace("-o build/", "").split()
        files = [path for word in command[2:] if "*" in word for path in local.ROOT.glob(word)]
        options = [word for word in command[2:] if "*" not in word]
        done = local.turnout("compile", *files, *options)
        assert done.returncode == 0, done.stderr


def test_every_extension_named_is_a_field_the_router_reads() -> None:
    """The table's middle column, against the grammar's own source."""
    text = (local.ROOT / "README.md").read_text()
    rows = re.findall(
        r"^\| .+? \| (.+?) \| .+ \|$", text.partition("## Extensions")[2], re.MULTILINE
    )
    fields = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    assert len(fields) >= 20
    grammar = (local.ROOT / "router_fn" / "graph.py").read_text()
    assert {name for name in fields if f'"{name}"' not in grammar} == set()
