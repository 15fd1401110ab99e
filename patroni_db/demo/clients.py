"""The clients' processes: programs of the example project, each ended by the end of its standard input."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patroni_db.cluster.lease import import_path
from patroni_db.demo.errors import DemoError
from patroni_db.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["CLIENTS", "ClientProcess", "ClientSpec", "Project", "find_project"]

_STOP_TIMEOUT = 10.0
_TAIL = 2000

_RUN = (
    "import runpy, sys; sys.path[:] = {path!r}; sys.argv = {argv!r}; "
    "runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
)
_NEEDED = {
    "django": "django",
    "sqlalchemy": "sqlalchemy",
    "greenlet": "sqlalchemy",
    "patroni": "cluster",
    "psutil": "cluster",
}


@dataclass(frozen=True, slots=True)
class ClientSpec:
    """A client.

    :param name: what the example project calls it
    :param label: what it is called on the screen
    :param writes: whether it writes
    :param lanes: its threads or tasks
    """

    name: str
    label: str
    writes: bool
    lanes: int = 2


CLIENTS = (
    ClientSpec("django-writers", "Django writes", writes=True),
    ClientSpec("sqlalchemy-writers", "SQLAlchemy writes", writes=True),
    ClientSpec("sqlalchemy-async", "SQLAlchemy async writes", writes=True),
    ClientSpec("django-readers", "Django reads", writes=False),
    ClientSpec("sqlalchemy-readers", "SQLAlchemy reads", writes=False),
)


def find_project(places: Sequence[Path] | None = None) -> Path:
    """Return the folder that holds ``example_project``.

    :param places: where to look; by default where Python imports from, beside this package, and here
    :raises ConfigError: when it is not here, or what it needs is not installed
    """
    if places is None:
        places = [*map(Path, import_path()), Path(__file__).resolve().parents[2], Path.cwd()]
    root = next((place for place in places if (place / "example_project/traffic/__main__.py").is_file()), None)
    if root is None:
        raise ConfigError(
            "example_project", "not found: the demo runs the example project of a checkout; run it at a checkout's root"
        )
    missing = {module: extra for module, extra in _NEEDED.items() if importlib.util.find_spec(module) is None}
    if missing:
        extras = ",".join(sorted(set(missing.values())))
        raise ConfigError(", ".join(missing), f"not installed: pip install 'patroni-db[{extras}]'")
    return root.resolve()


class Project:
    """The example project, on a cluster.

    :param root: the folder that holds it
    :param environment: variables for its programs, over those of this process
    """

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        path = import_path()
        # At the end: what is installed goes first, even when the checkout holds another version of it.
        self._path = path if str(root) in path else [*path, str(root)]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PATRONI_", "PG", "DJANGO_"))}
        self._environment = {**kept, **environment}

    def command(self, module: str, *arguments: str) -> list[str]:
        """Return the command line that runs a module of the project."""
        code = _RUN.format(path=self._path, argv=[module, *arguments], module=module)
        return [sys.executable, "-c", code]

    def popen(self, module: str, *arguments: str, output: int) -> subprocess.Popen[bytes]:
        """Start a module of the project, out of reach of the terminal's Ctrl-C.

        :param output: descriptor for both its outputs
        """
        return subprocess.Popen(
            self.command(module, *arguments),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=self._environment,
            start_new_session=True,
        )

    def manage(self, log: Path, *arguments: str) -> None:
        """Run a management command to its end.

        :param log: where its output goes
        :param arguments: the command
        :raises DemoError: when it fails; the message holds the end of its output
        """
        with log.open("ab") as output:
            process = self.popen("example_project.manage", *arguments, output=output.fileno())
            try:
                status = process.wait()
            finally:
                _end(process)
        if status:
            raise DemoError(f"manage.py {' '.join(arguments)} failed:\n{_tail(log)}")


class ClientProcess:
    """A running client.

    :param spec: which
    :param project: the example project
    :param folder: for its journal and its output
    """

    def __init__(self, spec: ClientSpec, project: Project, folder: Path) -> None:
        self.spec = spec
        self.journal = folder / f"{spec.name}.journal"
        self._log = folder / f"{spec.name}.log"
        arguments = (spec.name, "--journal", str(self.journal), "--lanes", str(spec.lanes))
        with self._log.open("ab") as output:
            self._process = project.popen("example_project.traffic", *arguments, output=output.fileno())

    def check(self) -> None:
        """Make sure that it runs.

        :raises DemoError: when it has ended; the message holds the end of its output
        """
        status = self._process.poll()
        if status is not None:
            raise DemoError(f"the client {self.spec.name} ended (exit status {status}):\n{_tail(self._log)}")

    def tell_to_stop(self) -> None:
        """Let it finish what it does; it begins nothing new."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def end(self, deadline: float) -> None:
        """Wait until it has ended, and end it hard when it has not by `deadline`."""
        self.tell_to_stop()
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            _end(self._process)


def stop_all(clients: Sequence[ClientProcess]) -> None:
    """Stop `clients`, all at the same time."""
    for client in clients:
        client.tell_to_stop()
    deadline = time.monotonic() + _STOP_TIMEOUT
    for client in clients:
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.end(deadline)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-_TAIL:].strip() or "(it said nothing)"
