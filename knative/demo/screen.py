"""What the demo prints: headings, facts, progress on one line. Plain text without a terminal."""

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

_STYLES = {"bold": "1", "dim": "2", "green": "32", "red": "31", "cyan": "36", "yellow": "33"}
_REDRAW_S = 0.1


class Screen:
    """Writes to one stream; safe to use from a progress thread and the main thread in turns."""

    def __init__(self, stream: TextIO | None = None, *, colour: bool = True) -> None:
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._colour = colour and self._terminal

    def style(self, text: str, *names: str) -> str:
        """`text` in the named styles (`bold`, `green`, ...), or as it is without colours."""
        if not self._colour or not names:
            return text
        return f"\x1b[{';'.join(_STYLES[name] for name in names)}m{text}\x1b[0m"

    def line(self, text: str = "") -> None:
        print(text, file=self._stream, flush=True)

    def heading(self, text: str) -> None:
        self.line()
        self.line(self.style(text, "bold", "cyan"))

    def fact(self, name: str, text: str) -> None:
        """One aligned `name  text` line below a heading."""
        self.line(f"  {self.style(f'{name:<9}', 'dim')} {text}")

    @contextlib.contextmanager
    def progress(self, text: str) -> Iterator["Progress"]:
        """A line that counts seconds while the block runs; nothing without a terminal."""
        progress = Progress(self, self._stream if self._terminal else None, text)
        progress.start()
        try:
            yield progress
        finally:
            progress.stop()


class Progress:
    """What is going on and for how long; `note` says how far it is."""

    def __init__(self, screen: Screen, terminal: TextIO | None, text: str) -> None:
        self._screen = screen
        self._terminal = terminal
        self._text = text
        self._note = ""
        self._started = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def start(self) -> None:
        if self._terminal is not None:
            self._thread.start()

    def note(self, text: str) -> None:
        self._note = text

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def stop(self) -> None:
        """End the line and remove it: what was reached is the caller's to print."""
        self._done.set()
        if self._terminal is not None:
            self._thread.join()
            self._terminal.write("\r\x1b[K")
            self._terminal.flush()

    def _draw(self) -> None:
        assert self._terminal is not None
        while not self._done.wait(_REDRAW_S):
            width = shutil.get_terminal_size().columns - 1
            text = f"  {self._text} {self._note} ({self.seconds:.0f} s)"[:width]
            self._terminal.write(f"\r\x1b[K{self._screen.style(text, 'dim')}")
            self._terminal.flush()
