"""Cutting a node off from all others, as if its host's network had failed: every packet is lost without a word.

All addresses of a local cluster are on the loopback interface, and a server that connects does so from 127.0.0.1.
So packets are known by the control group of the process that sends them: a node that is to be cut off is started
in one of its own, where all its sockets belong to it from birth. Rules apply to a network namespace made for the
benchmark, which leaves the rest of the machine alone. Needs Linux, root and iptables.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from benchmarks.children import BenchmarkError
from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patroni_db.cluster import LocalCluster, Node

__all__ = ["Partition", "control_group", "enter_own_network", "why_impossible"]

# <linux/sched.h>
_CLONE_NEWNET: Final = 0x40000000
# Marks of conversations of the node with itself, and of packets to be lost.
_OWN: Final = "0x1"
_LOST: Final = "0x2"
_REFUSALS: Final = 6


def why_impossible() -> str | None:
    """Return what is missing for a partition on this machine; None when nothing is."""
    if sys.platform != "linux":
        return "needs Linux"
    if os.geteuid() != 0:
        return "needs root"
    if _unified_hierarchy() is None:
        return "needs a mounted cgroup2"
    missing = [program for program in ("ip", "iptables") if shutil.which(program) is None]
    return f"needs {' and '.join(missing)}" if missing else None


def enter_own_network() -> None:
    """Move this process, and so all it starts, to a network of its own with nothing but a loopback interface.

    :raises BenchmarkError: the kernel does not allow it
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise BenchmarkError(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    _run("ip", "link", "set", "lo", "up")


@contextlib.contextmanager
def control_group() -> Iterator[Path]:
    """Make a control group, and remove it when all its processes have ended."""
    hierarchy = _unified_hierarchy()
    assert hierarchy is not None  # noqa: S101 - why_impossible() was asked
    group = hierarchy / f"patroni-db-benchmark-{os.getpid()}"
    group.mkdir()
    try:
        yield group
    finally:
        group.rmdir()


class Partition:
    """The network around one node of a cluster, whole or cut.

    As a context manager it restarts the leader in its control group, makes it the leader again, and cleans up.

    :param cluster: a cluster that was started after :func:`enter_own_network`
    :param group: a :func:`control_group`
    :param lead: whether the node is made the leader again
    """

    def __init__(self, cluster: LocalCluster, group: Path, *, lead: bool = True) -> None:
        self._cluster = cluster
        self._group = group
        self._lead = lead
        self._name = group.name
        self._node: Node | None = None

    def __enter__(self) -> Self:
        node = self._node = self._cluster.node(self._cluster.wait_for_leader())
        own = ("-m", "cgroup", "--path", self._name)
        # The node's conversations with itself are known from their first packet on.
        _rule("-A", "OUTPUT", *own, "-d", node.host, "-j", "CONNMARK", "--set-mark", _OWN)
        self._cluster.kill_node(node.name)
        self._cluster.expire_leader()
        self._cluster.wait_for_leader(other_than=node.name)
        self.start_node()
        self._cluster.wait_until_streaming()
        if self._lead:
            self._make_leader(node.name)
            self._cluster.wait_until_streaming()
        return self

    def _make_leader(self, name: str) -> None:
        """Switch over to the node, which Patroni refuses while another one is the synchronous standby."""
        asked = 0
        while self._cluster.leader != name:
            try:
                self._cluster.switchover(name)
            except ClusterError:
                asked += 1
                if asked > _REFUSALS:
                    raise
                self._cluster.switchover()  # to the synchronous standby: the next one may be ours
                self._cluster.wait_until_streaming()

    def __exit__(self, *exc_info: object) -> None:
        self.mend()
        _rule("-F", "OUTPUT")

    @property
    def node(self) -> str:
        """The name of the node that can be cut off."""
        assert self._node is not None  # noqa: S101 - entered
        return self._node.name

    def start_node(self) -> None:
        """Start the node, which was killed, in its control group."""
        supervisor = self._supervisor()
        home = Path("/proc", str(supervisor), "cgroup").read_text(encoding="ascii")
        path = next(line.split("::", 1)[1] for line in home.splitlines() if line.startswith("0::"))
        (self._group / "cgroup.procs").write_text(str(supervisor), encoding="ascii")
        try:
            self._cluster.start_node(self.node)
        finally:
            procs = self._group.parent / path.lstrip("/") / "cgroup.procs"
            procs.write_text(str(supervisor), encoding="ascii")

    def cut(self) -> None:
        """Lose every packet between the node and everybody else."""
        assert self._node is not None  # noqa: S101 - entered
        own = ("-m", "cgroup", "--path", self._name)
        others = ("-m", "connmark", "!", "--mark", _OWN)
        # Lost on arrival: a packet that may not leave would be an error that the sender is told of.
        _rule("-A", "OUTPUT", *own, *others, "-j", "MARK", "--set-mark", _LOST)
        _rule("-A", "OUTPUT", "-d", self._node.host, *others, "-j", "MARK", "--set-mark", _LOST)
        _rule("-A", "INPUT", "-m", "mark", "--mark", _LOST, "-j", "DROP")

    def mend(self) -> None:
        """Let packets through again."""
        _rule("-F", "INPUT")

    def _supervisor(self) -> int:
        """Return the process that starts the cluster's servers: the one that works in none of their folders."""
        import psutil  # noqa: PLC0415 - with the cluster's other requirements

        for process in psutil.Process().children(recursive=True):
            if any("patroni_db.cluster.supervisor" in word for word in process.cmdline()):
                return process.pid
        raise BenchmarkError("the cluster's supervisor is not a child of this process")


def _unified_hierarchy() -> Path | None:
    for line in Path("/proc/self/mounts").read_text(encoding="ascii").splitlines():
        _, folder, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(folder)
    return None


def _rule(*words: str) -> None:
    _run("iptables", "-w", *words)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"{' '.join(words)}: {done.stderr.strip()}")
