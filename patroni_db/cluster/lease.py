"""The supervisor process of a local cluster, and the socket that keeps it alive."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patroni_db.cluster.control import read_line
from patroni_db.cluster.render import environment
from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["STOP_TIMEOUT", "Lease", "import_path"]

# -I keeps the caller's folder and PYTHON* variables out of the servers; what the caller imports from is added
# at the end, so that nothing in it hides the standard library.
_BOOT = (
    "import sys; sys.path.extend(p for p in {path!r} if p not in sys.path); "
    "from patroni_db.cluster.supervisor import main; main({descriptor})"
)

_HELLO_TIMEOUT = 20.0
#: Seconds after which servers that were told to end should have.
STOP_TIMEOUT = 45.0


def import_path() -> list[str]:
    """Return where this process imports from, as absolute paths, for a child in another folder."""
    return [str(Path(entry).resolve()) for entry in sys.path if entry] + [str(Path.cwd())] * ("" in sys.path)


class Lease:
    """A supervisor process, which ends with everything it owns when :meth:`end` is called or this process is gone.

    Starts it; :meth:`greet` must follow.
    """

    def __init__(self) -> None:
        #: The process that may end it: a forked child must not end what its parent owns.
        self.owner = os.getpid()
        self._folders: frozenset[Path] = frozenset()
        self._kept: Path | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - greet() closes it
        self._lifeline, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT.format(path=import_path(), descriptor=theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,
                cwd="/",
                env=environment(Path("/"), [], os.environ) | {"TMPDIR": tempfile.gettempdir()},
            )

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self._process.pid

    def greet(self, nodes: int, directory: str | None, needed: Iterable[str]) -> dict[str, Any]:
        """Tell the supervisor what is wanted, and return what it has chosen: folders, addresses, ports.

        :param nodes: how many
        :param directory: the folder of all files, which is kept; None for a temporary one
        :param needed: files that a user must be able to read in order to run the servers
        :raises ClusterError: when it cannot have that, or does not answer
        """
        wish = {
            "nodes": nodes,
            "directory": directory,
            "temporary": tempfile.gettempdir(),
            "owner": self.owner,
            "needed": [*_imported_files(), *needed],
        }
        self._lifeline.settimeout(_HELLO_TIMEOUT)
        with self._errors:
            try:
                self._lifeline.sendall(json.dumps(wish).encode() + b"\n")
                line = read_line(self._lifeline)
            except OSError as error:
                line, reason = b"", str(error)
            else:
                reason = "it ended"
            if not line:
                self._errors.seek(0)
                detail = self._errors.read().decode(errors="replace").strip()[-3000:]
                raise ClusterError(f"the cluster's supervisor did not start: {reason}\n{detail}".rstrip())
        hello: dict[str, Any] = json.loads(line)
        if "error" in hello:
            raise ClusterError(hello["error"])
        self._folders = frozenset({Path(hello["root"]), Path(hello["run"])})
        self._kept = Path(hello["root"]) if directory else None
        return hello

    def wait(self, timeout: float | None) -> bool:
        """Block until the supervisor has ended.

        :param timeout: seconds to wait at most; None for ever
        :returns: whether it has
        """
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> None:
        """Let the supervisor go, and wait until it is gone with everything it owns. Does nothing in a forked child.

        :raises ClusterError: when it does not end
        """
        if os.getpid() != self.owner:
            return
        self._lifeline.close()
        self._errors.close()
        if not self.wait(STOP_TIMEOUT):
            raise ClusterError(f"the cluster's supervisor (process {self.pid}) does not end")
        if self._process.returncode != 0:
            # It was killed, and could not do this itself.
            from patroni_db.cluster.sweep import sweep  # noqa: PLC0415 - psutil may not be installed

            for folder in self._folders:
                sweep(folder, keep=folder == self._kept)


def _imported_files() -> Iterator[str]:
    yield from (sys.executable, str(Path(sys.executable).resolve()), sysconfig.get_path("stdlib"))
    for package in ("patroni", "psutil", "patroni_db", "psycopg"):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            yield spec.origin
