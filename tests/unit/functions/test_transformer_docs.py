"""docs/ready-made-transformers.md has every parameter with its default and its sentence."""

from pathlib import Path

import pytest

from functions.transformers import parameters, parsers

PAGE = Path(__file__).parents[3] / "docs" / "ready-made-transformers.md"


def shown(parameter: parsers.Parameter) -> str:
    if parameter.shown:
        return parameter.shown
    default = parameter.default
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default}`" if default not in ("", (), parsers.Size()) else "unset"


def table(kind: str) -> str:
    rows = [
        f"| `{parameter.name}` | {shown(parameter)} | {parameter.help} |"
        for parameter in parameters.TABLES[kind]
    ]
    return "\n".join(["| parameter | default | |", "|---|---|---|", *rows])


@pytest.mark.parametrize("kind", parameters.TABLES)
def test_the_page_prints_the_table(kind: str) -> None:
    assert table(kind) in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", parameters.TABLES)
def test_defaults_are_what_the_parsers_understand(kind: str) -> None:
    for parameter in parameters.TABLES[kind]:
        text = parameter.shown or shown(parameter)
        first = text.partition("`;")[0]
        if parameter.default and first.startswith("`"):
            assert parameter.parse(first.strip("`")) == parameter.default, parameter.name
