"""What the demo reads from the environment, once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

_PASSED_ON = ("HOME", "PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "SYSTEMROOT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the demo takes from outside."""

    colour: bool
    """False if NO_COLOR is set (https://no-color.org) or TERM is `dumb`."""
    environ: Mapping[str, str] = field(repr=False)
    """What child processes inherit. A developer's own cloud credentials are left out on purpose:
    the demo talks to its own S3 server and must not be able to reach another."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        env = os.environ if environ is None else environ
        return cls(
            colour=not env.get("NO_COLOR") and env.get("TERM") != "dumb",
            environ={name: env[name] for name in _PASSED_ON if name in env},
        )
