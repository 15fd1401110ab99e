"""The process that owns every server of a local cluster, and outlives none of its reasons to exist.

It ends, and takes all servers, their files and their shared memory along, when

* the owner asks for it,
* the owner is gone, however it went: its end of a socket pair closes, or its process ends while a forked
  child still holds that socket,
* it gets SIGTERM.

It runs in a session of its own, so that Ctrl-C in a terminal reaches only the owner, and as an ordinary user.
On Linux it adopts the orphans of its servers (``PR_SET_CHILD_SUBREAPER``): nothing escapes it. One thread,
one loop.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from patroni_db.cluster import ipc, processes
from patroni_db.cluster.addresses import claim
from patroni_db.cluster.control import read_line
from patroni_db.cluster.nodes import ProcessState
from patroni_db.cluster.privileges import become_ordinary_user, forgo_capability
from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# A unix socket's path has at most 107 bytes on Linux, 103 on macOS; the longest is NODE/.s.PGSQL.15432.lock.
_MAX_ROOT_LENGTH = 75
# The owner's end is noticed at once where there is pidfd_open, and else after so many seconds.
_TICK = 0.25
_REQUEST_TIMEOUT = 2.0
_KILL_TIMEOUT = 30.0


@dataclass(slots=True)
class _Service:
    """A server that was started here.

    :param argv: its command line
    :param env: its environment
    :param folder: its folder, its working directory too
    :param log: where its output goes
    :param privileged: whether it needs the capability that was kept, see :mod:`patroni_db.cluster.privileges`
    :param pid: its process id, None when it is not running
    :param exit_status: how it ended last, as ``subprocess`` counts
    """

    argv: list[str]
    env: dict[str, str]
    folder: Path
    log: Path
    privileged: bool
    pid: int | None = None
    exit_status: int | None = None


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _make_root(wanted: str | None, base: str) -> Path:
    """Make the cluster's folder, as the user the servers run as."""
    if wanted is not None:
        root = Path(wanted).resolve()
        root.chmod(0o700)
        return root
    for parent in dict.fromkeys((base, "/tmp", "/var/tmp")):  # noqa: S108 - mkdtemp makes it unguessable and private
        if len(parent) < _MAX_ROOT_LENGTH - 24 and os.access(parent, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix="patroni-db-", dir=parent)).resolve()
    raise ClusterError(f"no folder for temporary files can be written to: {base}")


class Supervisor:
    """The loop and what it knows.

    :param spec: what the owner wants: ``nodes``, ``directory``, ``temporary``, ``needed``, ``owner``
    :param lifeline: the socket pair's end whose closing means that the owner is gone
    """

    def __init__(self, spec: Mapping[str, Any], lifeline: socket.socket) -> None:
        self._lifeline = lifeline
        self._owner = int(spec["owner"])
        self._keep = spec["directory"] is not None
        self._services: dict[str, _Service] = {}
        self._buried: set[int] = set()
        self._stopping = False
        self._farewells: list[socket.socket] = []
        directory = self._prepare_directory(spec["directory"])
        self._unreadable = become_ordinary_user(spec["needed"], [directory] if directory else [])
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self.layout, self._lock = claim(int(spec["nodes"]))
        self.root = _make_root(directory, spec["temporary"])
        # Sockets need a short path; a folder the user named may be a long one.
        self.run = self.root if len(str(self.root)) <= _MAX_ROOT_LENGTH else _make_root(None, spec["temporary"])
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(str(self.run / "control"))
            self._listener.listen(64)
        except OSError:
            self._remove_files()
            raise

    @staticmethod
    def _prepare_directory(wanted: str | None) -> str | None:
        """Make a named folder while this process may still be root, and give it to the servers' user."""
        if wanted is None:
            return None
        root = Path(wanted)
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(root.iterdir()):
                raise ClusterError(f"directory: {root} is not empty")
        except OSError as error:
            raise ClusterError(f"directory: {error}") from error
        return str(root)

    def hello(self) -> dict[str, Any]:
        """Return what the owner must know."""
        layout = self.layout
        return {
            "root": str(self.root),
            "run": str(self.run),
            "etcd": layout.etcd,
            "etcd_peer": layout.etcd_peer,
            "lock": layout.lock,
            "postgres": layout.postgres,
            "api": layout.api,
            "unreadable": self._unreadable,
        }

    # The loop.

    def run_until_done(self) -> None:
        """Serve until there is a reason to end, then end everything."""
        waker, wakeup = socket.socketpair()
        waker.setblocking(False)
        wakeup.setblocking(False)
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_term)
        owner_watch = self._watch_owner()
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._lifeline, selectors.EVENT_READ, "owner")
                selector.register(self._listener, selectors.EVENT_READ, "request")
                selector.register(waker, selectors.EVENT_READ, "signal")
                if owner_watch is not None:
                    selector.register(owner_watch, selectors.EVENT_READ, "owner")
                while not self._stopping:
                    for key, _ in selector.select(_TICK):
                        self._handle(str(key.data), waker)
                    self._bury()
                    if os.getppid() != self._owner:
                        self._stopping = True
        finally:
            self._end()

    def _on_term(self, *_: object) -> None:
        self._stopping = True

    def _watch_owner(self) -> int | None:
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                return os.pidfd_open(self._owner)
        return None

    def _handle(self, what: str, waker: socket.socket) -> None:
        if what == "owner":
            self._stopping = True
        elif what == "signal":
            with contextlib.suppress(BlockingIOError):
                waker.recv(4096)
        else:
            self._serve()

    def _serve(self) -> None:
        with contextlib.ExitStack() as closing, contextlib.suppress(OSError):
            # A client that hangs up or stalls is its own problem.
            connection, _ = self._listener.accept()
            closing.enter_context(connection)
            connection.settimeout(_REQUEST_TIMEOUT)
            answer = self._answer(read_line(connection))
            connection.sendall(json.dumps(answer).encode() + b"\n")
            if self._stopping:
                # Stays open until this process is gone: its closing tells the client that all is done.
                self._farewells.append(connection)
                closing.pop_all()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            operation = getattr(self, "do_" + request.pop("operation"))
            answer: dict[str, Any] = operation(**request)
        except (ClusterError, OSError, psutil.Error) as error:
            return {"error": str(error)}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return {"error": f"bad request: {error!r}"}
        return answer

    def _bury(self) -> None:
        """Reap whatever has ended: servers, and orphans that were adopted."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._buried.add(pid)
            for service in self._services.values():
                if service.pid == pid:
                    service.pid = None
                    service.exit_status = os.waitstatus_to_exitcode(status)

    # What can be asked for. Each returns a JSON object.

    def do_write(self, path: str, text: str, *, mode: int = 0o600) -> dict[str, Any]:
        """Write a file in the cluster's folder; tell whether it can be executed there."""
        target = self.root / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.touch(mode=mode)
        target.write_text(text)
        return {"executable": os.access(target, os.X_OK)}

    def do_read(self, path: str) -> dict[str, Any]:
        """Return the text of a file in the cluster's folder."""
        return {"text": (self.root / path).read_text()}

    def do_start(
        self,
        name: str,
        argv: list[str] | None = None,
        env: dict[str, str] | None = None,
        log: str | None = None,
        *,
        privileged: bool = True,
    ) -> dict[str, Any]:
        """Start a server; the command line is remembered for the next time."""
        self._bury()
        if argv is not None and env is not None and log is not None:
            folder = self.root / name
            folder.mkdir(mode=0o700, exist_ok=True)
            (self.run / name).mkdir(mode=0o700, exist_ok=True)
            self._services[name] = _Service(argv, env, folder, self.root / log, privileged)
        service = self._service(name)
        if service.pid is not None:
            raise ClusterError(f"{name} is running already")
        service.exit_status = None
        service.pid = self._spawn(service)
        return {"pid": service.pid}

    def do_alive(self) -> dict[str, Any]:
        """Tell how the program of each server is, and how those ended that do not run. Cheap."""
        self._bury()
        return {
            name: {"state": _state_of(service.pid), "exit_status": service.exit_status}
            for name, service in self._services.items()
        }

    def do_status(self) -> dict[str, Any]:
        """Tell how the processes of every server are."""
        self._bury()
        census = processes.census(self.root)
        answer = {}
        for name, service in self._services.items():
            found = census.of(service.folder, service.pid)
            main = next((process for process in found if process.pid == service.pid), None)
            answer[name] = {
                "main": _state(main),
                "postgres": _state(processes.postmaster(service.folder / "data", found)),
                "frozen": any(processes.is_frozen(process) for process in found),
                "processes": len(found),
            }
        return answer

    def do_freeze(self, name: str, *, main_only: bool = False) -> dict[str, Any]:
        """Stop a server's processes (SIGSTOP), or only those that are not PostgreSQL's."""
        service = self._service(name)
        count = processes.freeze(lambda: self._part(service, main_only=main_only))
        if not count:
            raise ClusterError(f"{name} is not running")
        return {"processes": count}

    def do_thaw(self, name: str) -> dict[str, Any]:
        """Continue a server's processes (SIGCONT)."""
        service = self._service(name)
        return {"processes": processes.thaw(lambda: self._tree(service))}

    def do_kill(self, name: str) -> dict[str, Any]:
        """Kill all of a server's processes, and wait until they are gone."""
        service = self._service(name)
        count = processes.kill(lambda: self._tree(service))
        self._wait_for_end(service)
        if not count:
            raise ClusterError(f"{name} is not running")
        return {"processes": count}

    def do_kill_postgres(self, name: str) -> dict[str, Any]:
        """Kill a node's postmaster (SIGKILL), and nothing else."""
        service = self._service(name)
        process = processes.postmaster(service.folder / "data", self._tree(service))
        if process is None:
            raise ClusterError(f"PostgreSQL of {name} is not running")
        process.kill()
        return {"pid": process.pid}

    def do_shutdown(self) -> dict[str, Any]:
        """End everything, after this answer."""
        self._stopping = True
        return {}

    # How it is done.

    def _service(self, name: str) -> _Service:
        try:
            return self._services[name]
        except KeyError:
            raise ClusterError(f"there is no server {name!r}") from None

    def _tree(self, service: _Service) -> list[psutil.Process]:
        return processes.census(self.root).of(service.folder, service.pid)

    def _part(self, service: _Service, *, main_only: bool) -> list[psutil.Process]:
        found = self._tree(service)
        if not main_only:
            return found
        main = postmaster = processes.postmaster(service.folder / "data", found)
        if main is None:
            return found
        database = {postmaster, *main.children(recursive=True)}
        return [process for process in found if process not in database]

    def _spawn(self, service: _Service) -> int:
        """Fork and execute, by hand: the children of this process are reaped by ``waitpid(-1)``."""
        log = os.open(service.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        supervisor = os.getpid()
        try:
            pid = os.fork()
            if pid == 0:
                try:
                    os.setsid()
                    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                    if os.getppid() != supervisor:
                        os._exit(1)
                    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM, signal.SIGCHLD):
                        signal.signal(number, signal.SIG_DFL)
                    os.dup2(nothing, 0)
                    os.dup2(log, 1)
                    os.dup2(log, 2)
                    os.chdir(service.folder)
                    if not service.privileged:
                        forgo_capability()
                    os.execve(service.argv[0], service.argv, service.env)
                except OSError as error:
                    os.write(2, f"cannot execute {service.argv[0]}: {error}\n".encode())
                finally:
                    os._exit(127)
        finally:
            os.close(log)
            os.close(nothing)
        return pid

    def _wait_for_end(self, service: _Service) -> None:
        deadline = time.monotonic() + _KILL_TIMEOUT
        while True:
            self._bury()
            remaining = self._tree(service)
            if not remaining and service.pid is None:
                return
            if time.monotonic() > deadline:
                raise ClusterError(f"processes do not end: {[process.pid for process in remaining]}")
            time.sleep(0.01)

    def _end(self) -> None:
        """Kill every process, then remove everything they left."""
        self._listener.close()
        deadline = time.monotonic() + _KILL_TIMEOUT
        while remaining := processes.descendants(self.root):
            for process in remaining:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._bury()
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)
        data_dirs = [service.folder / "data" for service in self._services.values()]
        ipc.remove_segments(self._buried, data_dirs)
        self._remove_files()
        self._lock.close()

    def _remove_files(self) -> None:
        """Remove everything, but in a folder that the user named leave the logs and the configuration."""
        if self._keep:
            for data_dir in (service.folder / "data" for service in self._services.values()):
                shutil.rmtree(data_dir, ignore_errors=True)
            (self.run / "control").unlink(missing_ok=True)
        else:
            shutil.rmtree(self.root, ignore_errors=True)
        if self.run != self.root:
            shutil.rmtree(self.run, ignore_errors=True)


def _state(process: psutil.Process | None) -> str:
    if process is None:
        return ProcessState.STOPPED
    return ProcessState.FROZEN if processes.is_frozen(process) else ProcessState.RUNNING


def _state_of(pid: int | None) -> str:
    try:
        return _state(None if pid is None else psutil.Process(pid))
    except psutil.NoSuchProcess:
        return ProcessState.STOPPED


def main(descriptor: int) -> None:
    """Run a supervisor.

    :param descriptor: number of the inherited socket to the owner; the first line on it is the wish
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o077)
    lifeline = socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    line = read_line(lifeline)
    if not line:
        return
    try:
        supervisor = Supervisor(json.loads(line), lifeline)
    except (ClusterError, OSError) as error:
        lifeline.sendall(json.dumps({"error": str(error)}).encode() + b"\n")
        return
    with contextlib.suppress(OSError):
        lifeline.sendall(json.dumps(supervisor.hello()).encode() + b"\n")
    supervisor.run_until_done()
