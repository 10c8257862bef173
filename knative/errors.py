"""What can go wrong between a manifest and a running service, with the exit code each deserves.

    TurnoutError              1   failed; the message says what to do
     +- UsageError            2   the command line is wrong
     +- ManifestError        65   problems in the input, all of them at once
     +- TryAgain             75   not ready yet, busy: the same command may work later

Errors of third-party libraries stop at the module that imports the library and arrive here chained.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from knative.api.problems import Problem


class TurnoutError(Exception):
    """The command failed; `str(error)` is one or more plain lines for the user."""

    exit_code: ClassVar[int] = 1


class UsageError(TurnoutError):
    """The command line asks for something that does not make sense."""

    exit_code = 2


class ManifestError(TurnoutError):
    """The input manifests are not acceptable; the message lists every problem, one a line."""

    exit_code = 65

    def __init__(self, problems: "Sequence[Problem] | str") -> None:
        self.problems: list[Problem] = []
        if isinstance(problems, str):
            super().__init__(problems)
            return
        self.problems = sorted(problems, key=lambda p: p.key)
        count = sum(p.level == "error" for p in self.problems)
        lines = "\n".join(str(p) for p in self.problems)
        super().__init__(f"{count} problem{'' if count == 1 else 's'} in the manifests\n{lines}")


class TryAgain(TurnoutError):
    """Nothing is wrong with the input, but not now (engine not up yet, port busy, cluster away)."""

    exit_code = 75
