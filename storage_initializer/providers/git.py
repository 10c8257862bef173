"""`git+https://host/repo.git[@ref][#sub/dir]` and KServe's `https://…​.git`, through dulwich.

A shallow clone of one ref (branch, tag or, where the server allows it, commit) without history and
without `.git`. Git's own object names verify the content. Git LFS pointers are an error that says
so: a model of 130 bytes would be worse. User and password from the URL or `GIT_USERNAME`,
`GIT_PASSWORD`.
"""

import errno
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from storage_initializer.context import Context
from storage_initializer.errors import (
    AccessDenied,
    InvalidUri,
    MissingExtra,
    NotFound,
    StorageError,
    TransferFailed,
    UnsafePath,
    from_os_error,
)
from storage_initializer.items import CopySource, Item
from storage_initializer.retry import Retry
from storage_initializer.uri import Uri

_POINTER = b"version https://git-lfs.github.com/spec/"
_SHA = re.compile(r"[0-9a-f]{40}")


def connect(uri: Uri, context: Context) -> "GitSource":
    try:
        import dulwich  # noqa: F401 (is it there?)
    except ImportError:
        raise MissingExtra("git sources", "dulwich", "git") from None
    return GitSource(uri, context)


def locate(uri: Uri) -> tuple[str, str, str]:
    """(URL without credentials, ref or empty, sub directory or empty).

    The ref follows the last `@` of the path: `…/repo.git@feature/x`.
    """
    parts = urlsplit(uri.text.removeprefix("git+"))
    path, at, ref = parts.path.rpartition("@")
    directory = unquote(parts.fragment).strip("/")
    if ".." in directory.split("/"):
        raise InvalidUri(uri.shown, "the sub directory leads out of the repository")
    host = parts.netloc.rpartition("@")[2]
    url = urlunsplit((parts.scheme, host, path if at else parts.path, parts.query, ""))
    return url, ref if at else "", directory


class GitSource(CopySource):
    """One tree of one repository, held in a temporary clone until it is copied."""

    filtered = False

    def __init__(self, uri: Uri, context: Context) -> None:
        self.shown = uri.shown
        self._context = context
        self._url, self._ref, self._directory = locate(uri)
        parts = urlsplit(uri.text.removeprefix("git+"))
        env = context.environ
        self._user = unquote(parts.username or "") or env.get("GIT_USERNAME") or None
        self._password = unquote(parts.password or "") or env.get("GIT_PASSWORD") or None
        self._clone = ""
        """Directory of the clone, once there is one."""
        self._repo: Any = None

    def items(self) -> Iterator[Item]:
        policy = Retry(self._context.control)
        while self._repo is None:
            try:
                self._repo = self._fetch()
            except StorageError as exc:
                policy.failed(exc)
        repo = self._repo
        commit = repo[repo.head()]
        tree = repo[commit.tree]
        if self._directory:
            try:
                mode, sha = tree.lookup_path(repo.__getitem__, self._directory.encode())
            except KeyError:
                raise NotFound(self.shown, f"no {self._directory!r} in it") from None
            if not mode & 0o40000:
                raise NotFound(self.shown, f"{self._directory!r} is not a directory")
            tree = repo[sha]
        found = False
        for path, mode, sha in _walk(repo, tree, ""):
            kind = mode & 0o170000
            if kind == 0o160000:
                raise StorageError(f"{self.shown}: {path!r} is a submodule; name its repository")
            if kind == 0o120000:
                raise UnsafePath(self.shown, path, "a symbolic link in a git tree")
            blob = repo[sha]
            size = blob.raw_length()
            if size < 1024 and blob.data.startswith(_POINTER):
                raise StorageError(
                    f"{self.shown}: {path!r} is a Git LFS pointer, the content is elsewhere; "
                    "serve the model from object storage"
                )
            found = True
            name = sha.decode()
            yield Item(
                path=path, size=size, version=name, ref=name, mode=mode & 0o777, ranges=False
            )
        if not found:
            raise NotFound(self.shown, "the tree is empty")

    def copy(self, item: Item, target: Path) -> None:
        """From the clone; concurrent callers each read their own object."""
        with target.open("wb") as file:
            for chunk in self._repo[item.ref.encode()].as_raw_chunks():
                file.write(chunk)

    def _fetch(self) -> Any:
        """Clone one ref, depth 1, into memory-mapped packs of a temporary directory."""
        import urllib3
        from dulwich import client, errors, porcelain

        self._clone = self._clone or tempfile.mkdtemp(prefix="turnout-git-")
        directory = Path(self._clone) / "repo"
        shutil.rmtree(directory, ignore_errors=True)
        options: dict[str, Any] = {
            "depth": 1,
            "checkout": False,
            "errstream": porcelain.NoneStream(),
            "config": self._config(),
        }
        if self._user:
            options |= {"username": self._user, "password": self._password or ""}
        try:
            if _SHA.fullmatch(self._ref):
                return self._fetch_commit(directory, options)
            if self._ref:
                options["branch"] = self._ref.encode()
            return porcelain.clone(self._url, str(directory), **options)
        except client.HTTPUnauthorized as exc:
            raise AccessDenied(
                self.shown, "401", "set GIT_USERNAME and GIT_PASSWORD (a token)"
            ) from exc
        except errors.NotGitRepository as exc:
            raise NotFound(self.shown, "no git repository there") from exc
        except (KeyError, ValueError, porcelain.Error) as exc:
            raise NotFound(self.shown, f"no branch or tag {self._ref!r} ({exc})") from exc
        except OSError as exc:
            if exc.errno == errno.ENOSPC:
                raise from_os_error(exc, self._clone) from exc
            raise TransferFailed(self.shown, f"git: {exc}") from exc
        except (errors.GitProtocolError, urllib3.exceptions.HTTPError) as exc:
            raise TransferFailed(self.shown, f"git: {exc}") from exc

    def _config(self) -> Any:
        """The machine's git configuration with our time limit and roots; dulwich knows neither
        otherwise, and would wait for a silent server for ever."""
        from dulwich.config import ConfigFile, StackedConfig

        settings = self._context.settings
        own = ConfigFile()
        own.set((b"http",), b"timeout", f"{settings.stall_s:g}".encode())
        if settings.ca_bundle:
            own.set((b"http",), b"sslCAInfo", self._roots(settings.ca_bundle).encode())
        config = StackedConfig.default()
        config.backends.insert(0, own)
        return config

    def _roots(self, ca_bundle: str) -> str:
        """A file with the system's roots and the given ones: git's setting replaces the former."""
        import ssl

        files = [ssl.get_default_verify_paths().cafile, ca_bundle]
        target = Path(self._clone) / "roots.pem"
        target.write_bytes(b"\n".join(Path(file).read_bytes() for file in files if file))
        return str(target)

    def close(self) -> None:
        if self._clone:
            self._repo = None
            shutil.rmtree(self._clone, ignore_errors=True)

    def _fetch_commit(self, directory: Path, options: dict[str, Any]) -> Any:
        """A commit by its name: servers with allow-any-sha1-in-want, else it must be a tip."""
        from dulwich.client import get_transport_and_path
        from dulwich.repo import Repo

        directory.mkdir(parents=True)
        repo: Any = Repo.init(str(directory))
        kept = ("username", "password", "config")
        access = {key: options[key] for key in kept if key in options}
        transport: Any
        transport, path = get_transport_and_path(self._url, **access)
        wanted = self._ref.encode()
        transport.fetch(path, repo, determine_wants=lambda refs, depth=None: [wanted], depth=1)
        repo.refs[b"HEAD"] = wanted
        return repo


def _walk(repo: Any, tree: Any, prefix: str) -> Iterator[tuple[str, int, bytes]]:
    for entry in tree.items():
        path = prefix + entry.path.decode("utf-8", "surrogateescape")
        if entry.mode == 0o40000:
            yield from _walk(repo, repo[entry.sha], f"{path}/")
        else:
            yield path, entry.mode, entry.sha
