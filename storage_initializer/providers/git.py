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
from posixpath import dirname, normpath
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
_KIND = 0o170000
MAX_LINKS = 16
"""Symbolic links on the way to one file; more are a circle."""


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
        self._password = unquote(parts.password or "") or env.get("GIT_PASSWORD") or None
        self._user = unquote(parts.username or "") or env.get("GIT_USERNAME") or None
        if self._password and not self._user:
            self._user = "git"  # hosts that take tokens look at the password only
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
        root = tree = self._tree_of(repo)
        if self._directory:
            try:
                mode, sha = tree.lookup_path(repo.__getitem__, self._directory.encode())
            except KeyError:
                raise NotFound(self.shown, f"no {self._directory!r} in it") from None
            if not mode & 0o40000:
                raise NotFound(self.shown, f"{self._directory!r} is not a directory")
            tree = repo[sha]
        found = False
        for path, mode, sha in self._walk(root, tree, "", self._directory, 0):
            if mode & _KIND == 0o160000:
                raise StorageError(f"{self.shown}: {path!r} is a submodule; name its repository")
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

    def _tree_of(self, repo: Any) -> Any:
        """The tree of what was cloned, which an annotated tag only points to."""
        try:
            found = repo[repo.head()]
        except KeyError:
            raise NotFound(self.shown, "the repository is empty") from None
        while found.type_name == b"tag":
            found = repo[found.object[1]]
        if found.type_name != b"commit":
            raise NotFound(self.shown, f"{self._ref!r} is no commit, branch or tag")
        return repo[found.tree]

    def _walk(
        self, root: Any, tree: Any, prefix: str, where: str, links: int
    ) -> Iterator[tuple[str, int, bytes]]:
        """(path, mode, object name) of all files below `tree`, which is `where` in the repository.
        Symbolic links are followed inside it, as in a local directory."""
        repo = self._repo
        for entry in tree.items():
            name = entry.path.decode("utf-8", "surrogateescape")
            path, place = prefix + name, f"{where}/{name}".lstrip("/")
            mode, sha, passed = entry.mode, entry.sha, links
            while mode & _KIND == 0o120000:
                passed += 1
                target = repo[sha].data.decode("utf-8", "surrogateescape")
                place = normpath(f"{dirname(place)}/{target}".lstrip("/"))
                if target.startswith("/") or place.split("/")[0] == ".." or passed > MAX_LINKS:
                    raise UnsafePath(self.shown, path, f"a symbolic link to {target!r}")
                try:
                    mode, sha = (
                        (0o40000, root.id)
                        if place == "."
                        else root.lookup_path(repo.__getitem__, place.encode())
                    )
                except (KeyError, ValueError):
                    cause = f"{path!r} is a symbolic link to {target!r}, which is not there"
                    raise NotFound(self.shown, cause) from None
            if passed > links and f"{where}/".startswith(f"{place}/".removeprefix("./")):
                raise UnsafePath(self.shown, path, "a symbolic link to its own parent")
            if mode & _KIND == 0o40000:
                yield from self._walk(root, repo[sha], f"{path}/", place, passed)
            else:
                yield path, mode, sha

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
