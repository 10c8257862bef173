"""Every setting of the storage initializer, read once from the environment.

KServe's names are kept where it has them (`STORAGE_ALLOW_PATTERNS`, `S3_*`, `AWS_*`, …); ours are
`STORAGE_*`. Providers read their credentials from `environ`, the snapshot taken here, and nowhere
else. All problems are collected and reported together (exit code 2).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType

from .errors import InvalidSettings
from .records import NOTHING, Record

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {"ki": KIB, "mi": MIB, "gi": GIB, "ti": 1 << 40}

VERIFY_MODES = ("auto", "full", "size")
LOCAL_MODES = ("copy", "hardlink", "symlink")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")


class Settings(Record):
    """Limits, time-outs and choices. Byte counts accept `512Mi`, `2Gi`, `500M` or plain numbers."""

    mirrors: tuple[tuple[str, str], ...] = ()
    """`STORAGE_MIRRORS`: `FROM=TO,FROM=TO`, URI prefixes to replace (air-gapped mirrors)."""
    allow_patterns: tuple[str, ...] = ()
    """`STORAGE_ALLOW_PATTERNS`: JSON list or comma list; fnmatch on the path below the URI."""
    ignore_patterns: tuple[str, ...] = ()
    """`STORAGE_IGNORE_PATTERNS`: same form; wins over the allowed ones."""

    concurrency: int = 8
    """`STORAGE_CONCURRENCY`: connections (threads) over all sources; 8 saturates one core."""
    small_concurrency: int = 32
    """`STORAGE_SMALL_CONCURRENCY`: most further connections for files up to 256 KiB, served by one
    thread; default 4 × `STORAGE_CONCURRENCY`, none if that is 1."""
    part_bytes: int = 16 * MIB
    """`STORAGE_PART_BYTES`: size of the ranges a big file is fetched in, in parallel."""
    attempts: int = 8
    """`STORAGE_ATTEMPTS` (or `S3_MAX_ATTEMPTS`): tries of one range without a byte of
    progress before giving up."""
    connect_timeout_s: float = 15.0
    """`STORAGE_CONNECT_TIMEOUT_SECONDS` (or `S3_CONNECT_TIMEOUT`): TCP and TLS handshake."""
    stall_s: float = 30.0
    """`STORAGE_STALL_SECONDS` (or `S3_READ_TIMEOUT`): this long without progress is a failure."""
    min_speed: int = 1 * KIB
    """`STORAGE_MIN_SPEED`: bytes/s averaged over the stall window; slower counts as stalled."""
    file_timeout_s: float = 0.0
    """`STORAGE_FILE_TIMEOUT_SECONDS`: most time for one file; 0 means unlimited."""
    deadline_s: float = 0.0
    """`STORAGE_DEADLINE_SECONDS`: most time for everything; 0 means unlimited."""
    back_off_s: float = 0.25
    """`STORAGE_BACKOFF_SECONDS`: first wait after a failure; doubles, with full jitter."""
    back_off_max_s: float = 20.0
    """`STORAGE_BACKOFF_MAX_SECONDS`: longest wait, also for a server's Retry-After."""

    max_files: int = 200_000
    """`STORAGE_MAX_FILES`: most files of one source (each costs 2 KB of memory)."""
    max_bytes: int = 0
    """`STORAGE_MAX_BYTES`: most bytes of one destination; 0 means what the volume has free."""
    unpack: bool = True
    """`STORAGE_UNPACK`: unpack a single tar or zip archive, as KServe does."""
    unpack_max_bytes: int = 0
    """`STORAGE_UNPACK_MAX_BYTES`: most bytes out of one archive; 0 means what is free."""
    unpack_max_files: int = 200_000
    """`STORAGE_UNPACK_MAX_FILES`: most members of one archive."""
    unpack_max_ratio: int = 200
    """`STORAGE_UNPACK_MAX_RATIO`: most bytes out per byte in, judged from 64 MiB on."""

    verify: str = "auto"
    """`STORAGE_VERIFY`: auto (the checksum the source tells), full (also re-read files that were
    taken as they were), size (no checksums)."""
    revalidate: bool = True
    """`STORAGE_REVALIDATE`: on a complete destination ask the source whether it changed; if it
    cannot be reached the complete one is kept. false: a complete destination is trusted."""
    sync: bool = False
    """`STORAGE_SYNC`: flush to the device before the done-marker. Without it the marker is only
    trusted within the same boot of the node; after that files are re-read once."""
    local_mode: str = "copy"
    """`STORAGE_LOCAL_MODE`: copy (reflink where the file system can), hardlink or symlink."""
    cache_dir: str = ""
    """`STORAGE_CACHE_DIR`: node cache (hostPath or PVC) shared by initializers; empty: none."""
    cache_max_bytes: int = 50 * GIB
    """`STORAGE_CACHE_MAX_BYTES`: least recently used files go beyond this."""

    progress_s: float = 5.0
    """`STORAGE_PROGRESS_SECONDS`: between two progress lines; 0 silences them."""
    termination_log: str = "/dev/termination-log"
    """`STORAGE_TERMINATION_LOG`: gets the error line when the file exists."""
    log_level: str = "INFO"
    """`LOG_LEVEL`: DEBUG, INFO, WARNING or ERROR."""
    ca_bundle: str = ""
    """`REQUESTS_CA_BUNDLE`, `SSL_CERT_FILE`, or KServe's `CA_BUNDLE_VOLUME_MOUNT_POINT` +
    `cabundle.crt`: roots for https instead of the system's."""
    proxies: Mapping[str, str] = NOTHING
    """`http_proxy`, `https_proxy`, `all_proxy`: scheme → proxy URL (may hold a password)."""
    no_proxy: tuple[str, ...] = ()
    """`no_proxy`: host suffixes that are called directly; `*` means all."""
    environ: Mapping[str, str] = NOTHING
    """Snapshot for the providers' credential conventions; never printed."""

    def __repr__(self) -> str:
        return "Settings(…)"  # the environment holds secrets

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        env = os.environ if environ is None else environ
        spec_problems: list[str] = []
        spec_mirrors: tuple[tuple[str, str], ...] = ()
        if env.get("STORAGE_CONFIG") or env.get("STORAGE_OVERRIDE_CONFIG"):
            from .storage_spec import overlay

            env, spec_mirrors = overlay(env, spec_problems)
        reader = Reader(env)
        reader.problems += spec_problems
        defaults = cls()
        concurrency = reader.number("STORAGE_CONCURRENCY", defaults.concurrency, 1, 256)
        settings = cls(
            mirrors=(*reader.mirrors("STORAGE_MIRRORS"), *spec_mirrors),
            allow_patterns=reader.patterns("STORAGE_ALLOW_PATTERNS"),
            ignore_patterns=reader.patterns("STORAGE_IGNORE_PATTERNS"),
            concurrency=concurrency,
            small_concurrency=reader.number(
                "STORAGE_SMALL_CONCURRENCY", 0 if concurrency == 1 else 4 * concurrency, 0, 1024
            ),
            part_bytes=reader.size("STORAGE_PART_BYTES", defaults.part_bytes, 64 * KIB),
            attempts=reader.number(
                "STORAGE_ATTEMPTS",
                reader.number("S3_MAX_ATTEMPTS", defaults.attempts, 1, 1000),
                1,
                1000,
            ),
            connect_timeout_s=reader.seconds(
                "STORAGE_CONNECT_TIMEOUT_SECONDS",
                reader.seconds("S3_CONNECT_TIMEOUT", defaults.connect_timeout_s, 0.01),
                0.01,
            ),
            stall_s=reader.seconds(
                "STORAGE_STALL_SECONDS",
                reader.seconds("S3_READ_TIMEOUT", defaults.stall_s, 0.01),
                0.01,
            ),
            min_speed=reader.size("STORAGE_MIN_SPEED", defaults.min_speed, 0),
            file_timeout_s=reader.seconds("STORAGE_FILE_TIMEOUT_SECONDS", 0.0, 0),
            deadline_s=reader.seconds("STORAGE_DEADLINE_SECONDS", 0.0, 0),
            back_off_s=reader.seconds("STORAGE_BACKOFF_SECONDS", defaults.back_off_s, 0),
            back_off_max_s=reader.seconds(
                "STORAGE_BACKOFF_MAX_SECONDS", defaults.back_off_max_s, 0
            ),
            max_files=reader.number("STORAGE_MAX_FILES", defaults.max_files, 1, 10**8),
            max_bytes=reader.size("STORAGE_MAX_BYTES", 0, 0),
            unpack=reader.flag("STORAGE_UNPACK", True),
            unpack_max_bytes=reader.size("STORAGE_UNPACK_MAX_BYTES", 0, 0),
            unpack_max_files=reader.number(
                "STORAGE_UNPACK_MAX_FILES", defaults.unpack_max_files, 1, 10**8
            ),
            unpack_max_ratio=reader.number(
                "STORAGE_UNPACK_MAX_RATIO", defaults.unpack_max_ratio, 1, 10**6
            ),
            verify=reader.choice("STORAGE_VERIFY", VERIFY_MODES),
            revalidate=reader.flag("STORAGE_REVALIDATE", True),
            sync=reader.flag("STORAGE_SYNC", False),
            local_mode=reader.choice("STORAGE_LOCAL_MODE", LOCAL_MODES),
            cache_dir=env.get("STORAGE_CACHE_DIR", ""),
            cache_max_bytes=reader.size("STORAGE_CACHE_MAX_BYTES", defaults.cache_max_bytes, 0),
            progress_s=reader.seconds("STORAGE_PROGRESS_SECONDS", defaults.progress_s, 0),
            termination_log=termination_log(env),
            log_level=reader.choice("LOG_LEVEL", ("INFO", "DEBUG", "WARNING", "ERROR")),
            ca_bundle=reader.ca_bundle(),
            proxies=MappingProxyType(_proxies(env)),
            no_proxy=_no_proxy(env),
            # A Secret made with `echo token | base64` ends with a line break.
            environ=MappingProxyType({name: value.strip("\r\n") for name, value in env.items()}),
        )
        if reader.flag("CONFIDENTIAL_ENABLED", False):
            reader.problems.append(
                "CONFIDENTIAL_ENABLED: encrypted models (JWE) are not decrypted here; "
                "use KServe's storage initializer image for them, or unset it"
            )
        if reader.problems:
            raise InvalidSettings(reader.problems)
        return settings


def termination_log(environ: Mapping[str, str] | None = None) -> str:
    """Where the error line goes, also when the other settings cannot be read."""
    env = os.environ if environ is None else environ
    return env.get("STORAGE_TERMINATION_LOG", Settings().termination_log)


class Reader:
    """Typed look-ups that collect problems instead of raising at the first."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []

    def _get(self, name: str, default: T, convert: Callable[[str], T], expected: str) -> T:
        text = self._environ.get(name, "").strip()
        if not text:
            return default
        try:
            return convert(text)
        except ValueError:
            self.problems.append(f"{name}={text!r}: expected {expected}")
            return default

    def number(self, name: str, default: int, low: int, high: int) -> int:
        def convert(text: str) -> int:
            value = int(text)
            if not low <= value <= high:
                raise ValueError
            return value

        return self._get(name, default, convert, f"a whole number from {low} to {high}")

    def size(self, name: str, default: int, low: int) -> int:
        def convert(text: str) -> int:
            value = parse_size(text)
            if value < low:
                raise ValueError
            return value

        return self._get(name, default, convert, f"bytes, at least {low} (512Mi, 2Gi, 1000000)")

    def seconds(self, name: str, default: float, low: float) -> float:
        def convert(text: str) -> float:
            value = float(text)
            if not low <= value <= 10**7:
                raise ValueError
            return value

        return self._get(name, default, convert, f"seconds, at least {low:g}")

    def flag(self, name: str, default: bool) -> bool:
        return self._get(name, default, parse_flag, "true or false")

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """One of `choices`, compared without case; the first one is the default."""

        def convert(text: str) -> str:
            for choice in choices:
                if choice.lower() == text.lower():
                    return choice
            raise ValueError

        return self._get(name, choices[0], convert, "one of " + ", ".join(choices))

    def patterns(self, name: str) -> tuple[str, ...]:
        def convert(text: str) -> tuple[str, ...]:
            if not text.startswith("["):
                return tuple(part.strip() for part in text.split(",") if part.strip())
            values = json.loads(text)
            if not all(isinstance(value, str) for value in values):
                raise ValueError
            return tuple(values)

        return self._get(name, (), convert, 'a JSON list of strings or "*.bin,*.json"')

    def mirrors(self, name: str) -> tuple[tuple[str, str], ...]:
        def convert(text: str) -> tuple[tuple[str, str], ...]:
            pairs = []
            for part in filter(None, (piece.strip() for piece in text.split(","))):
                source, equals, target = part.partition("=")
                if not (source and equals and target and "://" in source):
                    raise ValueError
                pairs.append((source, target))
            return tuple(pairs)

        return self._get(name, (), convert, "FROM=TO,FROM=TO with URI prefixes")

    def ca_bundle(self) -> str:
        """The first bundle named; it must exist, or https would fail later and less clearly."""
        env = self._environ
        candidates = [(name, env.get(name, "")) for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")]
        if env.get("CA_BUNDLE_CONFIGMAP_NAME"):
            mount = env.get("CA_BUNDLE_VOLUME_MOUNT_POINT", "/etc/ssl/custom-certs")
            candidates.insert(0, ("CA_BUNDLE_VOLUME_MOUNT_POINT", f"{mount}/cabundle.crt"))
        for name, path in candidates:
            if path:
                if not os.path.exists(path):
                    if name.startswith("CA_BUNDLE") and env.get("AWS_CA_BUNDLE"):
                        continue  # KServe's webhook names the directory of that other file
                    self.problems.append(f"{name}: {path!r} does not exist: expected a PEM file")
                return path
        return ""


def parse_size(text: str) -> int:
    """`512Mi` → bytes; Kubernetes' quantity suffixes, case ignored. Raises ValueError."""
    digits = text.rstrip("KMGTBkmgtbi")
    unit = text[len(digits) :].lower().removesuffix("b")
    if unit not in _UNITS:
        raise ValueError(text)
    value = float(digits) if "." in digits else int(digits)
    if value < 0:
        raise ValueError(text)
    return int(value * _UNITS[unit])


def parse_flag(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    if lowered in ("0", "false", "no", "off"):
        return False
    raise ValueError(text)


def _proxies(env: Mapping[str, str]) -> dict[str, str]:
    """Lower case first, as curl; upper-case HTTP_PROXY is ignored under CGI only (not us)."""
    found = {}
    for scheme in ("http", "https", "all"):
        value = env.get(f"{scheme}_proxy") or env.get(f"{scheme.upper()}_PROXY")
        if value:
            found[scheme] = value
    return found


def _no_proxy(env: Mapping[str, str]) -> tuple[str, ...]:
    text = env.get("no_proxy") or env.get("NO_PROXY") or ""
    return tuple(part.strip().lower() for part in text.split(",") if part.strip())
