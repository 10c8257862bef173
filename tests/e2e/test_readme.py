"""Every command of README.md works as printed, in order, in one shell.

Blocks marked `console` are run (`$ ` lines); blocks marked `sh` need a cluster or are other tests'
(`make demo`, `make test`), and may only contain such commands. Ports are replaced by free ones, so
that the test disturbs nobody.
"""

import re
from pathlib import Path

import pytest

from tests.e2e import local, tour

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

NOT_RUN = re.compile(r"make (demo|test|install)|kn |turnout (compile|apply) |kubectl |$")


def test_every_command_of_the_tour_works_in_order(demo_output: str, tmp_path: Path) -> None:
    readme = local.ROOT / "README.md"
    assert len(tour.commands(readme)) >= 15
    text = tour.run(readme, tmp_path, path=local.TURNOUT.parent)
    assert text.count("It's a cat!") == 2, text
    assert "daisy" in text
    assert "Hello, Ada!" in text


def test_what_is_not_run_needs_a_cluster_or_is_another_tests() -> None:
    for readme in [local.ROOT / "README.md", *local.EXAMPLES.glob("*/README.md")]:
        for block in tour.blocks(readme, "sh"):
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
    lines = [line for block in tour.blocks(readme, "sh") for line in block.splitlines()]
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
