"""Keeping a named cluster up: in this process until it is told to end, or in a background process.

The background process is an ordinary owner of a :class:`LocalCluster`: when it is killed, the cluster goes too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from patroni_db.cluster import registry
from patroni_db.cluster.lease import import_path
from patroni_db.cluster.local import LocalCluster
from patroni_db.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

__all__ = ["keep", "keep_in_background"]

_BOOT = (
    "import sys; sys.path.extend(p for p in {path!r} if p not in sys.path); "
    "from patroni_db.cluster.keeper import main; main({descriptor})"
)


class _Ended(BaseException):
    """A signal told this process to end."""


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that the cluster's name is withdrawn."""

    def unwind(number: int, _frame: FrameType | None) -> None:
        raise _Ended(number)

    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def keep(name: str, options: Mapping[str, Any], progress: Callable[[str], None], ready: Callable[[], None]) -> None:
    """Start a cluster under `name`, and return when it was stopped, here by a signal or from another program.

    To be called in the main thread, as signals are handled.

    :param name: what other programs find it by
    :param options: keyword arguments of :class:`LocalCluster`
    :param progress: called with a line of text at each step of the start
    :param ready: called when the cluster is up and can be attached to
    :raises ClusterError: when it does not start, or one of this name runs already
    :raises ConfigError: when an option is wrong
    :raises KeyboardInterrupt: on Ctrl-C during the start; afterwards it is the ordinary end
    """
    registry.require_free(name)
    cluster = LocalCluster(**options, progress=progress)
    is_up = False
    try:
        with _signals_raise(), cluster:
            control = cluster.control
            try:
                registry.publish(name, control)
                ready()
                is_up = True
                cluster.wait()
            finally:
                registry.withdraw(name, control)
    except KeyboardInterrupt:
        if not is_up:
            raise
    except _Ended:
        if not is_up:
            raise ClusterError("the start was ended by a signal") from None


def keep_in_background(name: str, options: Mapping[str, Any], progress: Callable[[str], None]) -> None:
    """Start a cluster that stays when this program ends; return when it is up.

    :param name: what other programs find it by
    :param options: keyword arguments of :class:`LocalCluster`, JSON values only
    :param progress: called with a line of text at each step of the start
    :raises ClusterError: when it does not start, or one of this name runs already
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _BOOT.format(path=import_path(), descriptor=theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        try:
            ours.sendall(json.dumps({"name": name, "options": dict(options)}).encode() + b"\n")
            _follow(ours, progress)
        except BaseException:
            # Nobody would know of it: a start that was interrupted leaves nothing.
            process.terminate()
            process.wait()
            raise
        # It lives on; whoever adopts it reaps it.
        process.returncode = 0


def _follow(connection: socket.socket, progress: Callable[[str], None]) -> None:
    with connection.makefile() as lines:
        for line in lines:
            kind, text = json.loads(line)
            if kind == "ready":
                return
            if kind == "error":
                raise ClusterError(text)
            progress(text)
    raise ClusterError("the background process ended before the cluster was up")


def main(descriptor: int) -> None:
    """Be the background process.

    :param descriptor: number of the inherited socket to who wants the cluster; its first line is the wish
    """
    connection = socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)
    os.chdir("/")
    with connection.makefile() as lines:
        wish = json.loads(lines.readline())

    def say(kind: str, text: str = "") -> None:
        # Raises when nobody listens any more: then the start is given up.
        connection.sendall(json.dumps([kind, text]).encode() + b"\n")

    def ready() -> None:
        say("ready")
        connection.close()

    try:
        keep(wish["name"], wish["options"], lambda text: say("progress", text), ready)
    except (ClusterError, ConfigError) as error:
        with contextlib.suppress(OSError):
            say("error", str(error))
        raise SystemExit(1) from error
