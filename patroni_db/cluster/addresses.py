"""Addresses for a cluster that no other cluster on this machine has.

Linux answers on all of 127.0.0.0/8, so that each cluster takes a block 127.0.X.0/24 and every node has an
address of its own with the usual ports. Elsewhere only 127.0.0.1 exists, and nodes differ in ports.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Layout", "claim", "layouts"]

_FIRST_BLOCK = 77
_ETCD_HOST = 100
_LOCK_HOST = 254
# When something listens on these ports on every address, whole sets of others are tried.
_PORT_OFFSETS = (0, 10000, 20000)
# Below the ports that outgoing connections take on Linux (32768 and up) and macOS (49152 and up).
_SINGLE_HOST_BASES = range(21000, 29000, 100)


@dataclass(frozen=True, slots=True)
class Layout:
    """Who listens where.

    :param lock: bound for as long as the cluster lives, so that no other cluster takes the block
    :param etcd: client endpoint of etcd
    :param etcd_peer: peer endpoint of etcd
    :param postgres: PostgreSQL's endpoint of each node
    :param api: the REST API's endpoint of each node
    """

    lock: tuple[str, int]
    etcd: tuple[str, int]
    etcd_peer: tuple[str, int]
    postgres: tuple[tuple[str, int], ...]
    api: tuple[tuple[str, int], ...]

    @property
    def endpoints(self) -> tuple[tuple[str, int], ...]:
        """Every endpoint that a server of the cluster will listen on."""
        return (self.etcd, self.etcd_peer, *self.postgres, *self.api)


def layouts(nodes: int, *, many_addresses: bool) -> Iterator[Layout]:
    """Yield the layouts to try, the preferred one first.

    :param nodes: number of Patroni nodes
    :param many_addresses: whether every address of 127.0.0.0/8 can be bound
    """
    if many_addresses:
        for offset in _PORT_OFFSETS:
            for block in (*range(_FIRST_BLOCK, 255), *range(1, _FIRST_BLOCK)):
                hosts = tuple(f"127.0.{block}.{index}" for index in range(1, nodes + 1))
                etcd = f"127.0.{block}.{_ETCD_HOST}"
                yield Layout(
                    lock=(f"127.0.{block}.{_LOCK_HOST}", 2379),
                    etcd=(etcd, 2379 + offset),
                    etcd_peer=(etcd, 2380 + offset),
                    postgres=tuple((host, 5432 + offset) for host in hosts),
                    api=tuple((host, 8008 + offset) for host in hosts),
                )
    else:
        host = "127.0.0.1"
        for base in _SINGLE_HOST_BASES:
            yield Layout(
                lock=(host, base),
                etcd=(host, base + 1),
                etcd_peer=(host, base + 2),
                postgres=tuple((host, base + 10 + index) for index in range(nodes)),
                api=tuple((host, base + 50 + index) for index in range(nodes)),
            )


def _bindable(endpoint: tuple[str, int]) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do it: an old connection in TIME_WAIT does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(endpoint)
            probe.listen(1)
        except OSError:
            return False
    return True


def _has_many_addresses() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.77.1", 0))
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EINVAL):
                return False
            raise
    return True


def claim(nodes: int) -> tuple[Layout, socket.socket]:
    """Take a block of addresses that is free now.

    The lock is a bound socket rather than a file: the kernel gives it back however its holder ends, and in a
    network namespace of its own a cluster competes with nobody.

    :param nodes: number of Patroni nodes
    :returns: the layout, and the socket that must stay open for as long as the cluster lives
    :raises ClusterError: when nothing is free
    """
    try:
        many_addresses = _has_many_addresses()
    except OSError as error:
        raise ClusterError(f"no loopback address can be bound: {error}") from error
    for layout in layouts(nodes, many_addresses=many_addresses):
        # Without SO_REUSEADDR on purpose: with it, two could bind as long as neither listens.
        lock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with contextlib.ExitStack() as undo:
            undo.callback(lock.close)
            try:
                lock.bind(layout.lock)
            except OSError:
                continue
            if all(_bindable(endpoint) for endpoint in layout.endpoints):
                undo.pop_all()
                return layout, lock
    raise ClusterError("no free loopback addresses: the ports of PostgreSQL, Patroni and etcd are taken on all of them")
