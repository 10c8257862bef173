"""What the demo prints on a terminal, and what it prints when there is none."""

import io

import pytest

from knative.demo.screen import Screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_the_text_is_plain_and_progress_is_silent() -> None:
    stream = io.StringIO()
    screen = Screen(stream, colour=True)
    screen.heading("1. Models")
    with screen.progress("packing") as progress:
        progress.note("a.mar")
    screen.fact("archives", screen.style("five", "bold", "green"))
    assert stream.getvalue() == "\n1. Models\n  archives  five\n"


def test_on_a_terminal_colours_are_used_unless_refused() -> None:
    coloured, plain = Terminal(), Terminal()
    Screen(coloured, colour=True).line(Screen(coloured, colour=True).style("x", "red"))
    Screen(plain, colour=False).line(Screen(plain, colour=False).style("x", "red"))
    assert coloured.getvalue() == "\x1b[31mx\x1b[0m\n"
    assert plain.getvalue() == "x\n"


def test_progress_cleans_its_line_up_even_when_the_block_fails() -> None:
    stream = Terminal()
    screen = Screen(stream, colour=False)

    def fail() -> None:
        with screen.progress("working"):
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fail()
    assert stream.getvalue().endswith("\r\x1b[K")
