"""One experiment: a cluster, an oracle, all clients, one fault."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from benchmarks.accounting import recovery_of
from benchmarks.catalogue import HAPROXY
from benchmarks.children import Child
from benchmarks.faults import Scene
from benchmarks.haproxy import PORT, find_haproxy, haproxy
from benchmarks.partition import Partition, control_group
from benchmarks.records import ClientRecord, Observation, Probe, Write
from benchmarks.running import RunningClient, check_all, stop_all, wait_until
from benchmarks.sites import CREATE, Site
from patroni_db.cluster import LocalCluster

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.catalogue import ClientKind
    from benchmarks.faults import FaultKind
    from benchmarks.records import Key

__all__ = ["Settings", "experiment"]

# All clients log in at the same moment, on the processors of the servers: 4096 rounds of hashing each, a few
# milliseconds, would be most of what is measured. In life they have processors of their own.
_PARAMETERS = {"scram_iterations": 1}

_POLL = 0.1
# Seconds: until all clients have written, of calm before the fault, until the cluster must have recovered.
_START_TIMEOUT = 60.0
_CALM = 3.0
_OUTAGE_TIMEOUT = 90.0
# Seconds that everybody is watched after the recovery, and after a fault was undone.
_LEAST_WATCH = 5.0
_AFTER_UNDOING = 8.0

_CREATE_ORACLE = "CREATE TABLE bench_oracle AS SELECT 0::bigint AS beat"
_COUNT = "SELECT client, worker, number, count(*) FROM bench_writes GROUP BY 1, 2, 3"


@dataclass(frozen=True, slots=True)
class Settings:
    """How the experiments are made.

    :param clients: who takes part
    :param synchronous: whether replication is synchronous
    :param window: seconds after the recovery in which a client must have written, or is said to never do
    :param expire: whether a killed node's lock is taken away at once
    :param verbose: whether our clients log all that they do
    """

    clients: tuple[ClientKind, ...]
    synchronous: bool
    window: float
    expire: bool
    verbose: bool


def experiment(fault: FaultKind, settings: Settings, folder: Path, say: Callable[[str], None]) -> Observation:
    """Make `fault` once, and return what everybody saw.

    :param folder: where logs go
    :param say: told what goes on
    :raises BenchmarkError: it could not be carried out
    :raises ClusterError: the cluster did not do what it should
    """
    with contextlib.ExitStack() as stack:
        say("starting a cluster")
        group = stack.enter_context(control_group()) if fault.needs_partition else None
        cluster = stack.enter_context(
            LocalCluster(
                3,
                settings.synchronous,
                primary_start_timeout=fault.primary_start_timeout,
                parameters=_PARAMETERS,
                directory=folder / "cluster",
            )
        )
        partition = None
        if group is not None:
            say("restarting the primary in a control group of its own")
            partition = stack.enter_context(Partition(cluster, group))
        _prepare(cluster)
        cluster.wait_until_streaming()
        scene = Scene(cluster, cluster.wait_for_leader(), partition, settings.expire)
        return _observe(fault, settings, scene, folder, say)


def _prepare(cluster: LocalCluster) -> None:
    with psycopg.connect(cluster.conninfo(dbname=cluster.dbname), autocommit=True) as connection:
        connection.execute(_CREATE_ORACLE)
        connection.execute(CREATE)
        connection.execute(sql.SQL("GRANT ALL ON bench_writes TO {}").format(sql.Identifier(cluster.user)))


def _observe(
    fault: FaultKind, settings: Settings, scene: Scene, folder: Path, say: Callable[[str], None]
) -> Observation:
    cluster, probes = scene.cluster, list[Probe]()
    with contextlib.ExitStack() as stack:
        site = _site(cluster)
        if any(kind.name == HAPROXY for kind in settings.clients):
            program = find_haproxy()
            assert program is not None  # noqa: S101 - the client is left out without it
            stack.enter_context(haproxy(program, site.haproxy[0], cluster.nodes, folder))
        say(f"{scene.primary} leads; starting {len(settings.clients)} clients")
        conninfos = {node.name: cluster.conninfo(node.name, dbname=cluster.dbname) for node in cluster.nodes}
        oracle = stack.enter_context(
            Child("oracle", conninfos, folder / "oracle.log", lambda answer: probes.append(Probe(*answer)))
        )
        running = [
            stack.enter_context(RunningClient(kind, site, folder, verbose=settings.verbose and kind.is_ours))
            for kind in settings.clients
        ]
        wait_until(
            lambda: all(client.oldest_success > 0 for client in running), running, _START_TIMEOUT, "first writes"
        )
        wait_until(None, running, _CALM, "")
        say(f"{fault.label}")
        at = time.monotonic()
        fault.make(scene)
        undone = None
        _watch_recovery(fault, settings, probes, scene.primary, at, running, say)
        if fault.undo is not None:
            say("undoing it")
            undone = time.monotonic()
            fault.undo(scene)
            wait_until(None, running, _AFTER_UNDOING, "")
        ended = time.monotonic()
        oracle.tell_to_stop()
        stop_all(running)
    say("looking for every write")
    cluster.heal()
    names = {f"{node.host}:{node.port}": node.name for node in cluster.nodes}
    records = tuple(_record(client, names) for client in running)
    return Observation(fault.name, at, undone, ended, scene.primary, tuple(probes), records, _rows(cluster))


def _watch_recovery(
    fault: FaultKind,
    settings: Settings,
    probes: list[Probe],
    old: str,
    at: float,
    running: Sequence[RunningClient],
    say: Callable[[str], None],
) -> None:
    """Wait until the cluster has recovered and everybody is at work again, or has been waited for long enough."""
    if not fault.has_outage:
        wait_until(None, running, _LEAST_WATCH * 2, "")
        return

    def recovered() -> bool:
        return recovery_of(probes.copy(), old, at) is not None

    wait_until(recovered, running, _OUTAGE_TIMEOUT, "the cluster's recovery")
    recovery = recovery_of(probes.copy(), old, at)
    assert recovery is not None  # noqa: S101 - waited for
    say(f"{recovery.node} takes writes after {recovery.at - at:.2f} s")
    end = recovery.at + settings.window
    while time.monotonic() < end:
        at_work = all(client.oldest_success > recovery.at + 1 for client in running)
        if at_work and time.monotonic() > recovery.at + _LEAST_WATCH:
            return
        check_all(running)
        time.sleep(_POLL)


def _record(client: RunningClient, names: Mapping[str, str]) -> ClientRecord:
    """Return what a client did; it has ended.

    :param names: of the nodes, by address
    """
    history = client.history()
    writes = tuple(
        Write(worker, number, began, ended, None if node is None else names[node], error)
        for worker, entries in enumerate(history["writes"])
        for number, (began, ended, node, error) in enumerate(entries, start=1)
    )
    kind = client.kind
    return ClientRecord(kind.name, kind.workers, kind.pace, writes, tuple(history["attempts"]))


def _site(cluster: LocalCluster) -> Site:
    first = cluster.nodes[0]
    # An address of the cluster's own block, so that no other cluster on the machine has it.
    host = first.host.rsplit(".", 1)[0] + ".200" if first.host != "127.0.0.1" else first.host
    return Site(
        servers=tuple((node.host, node.port) for node in cluster.nodes),
        urls=cluster.urls,
        haproxy=(host, PORT),
        dbname=cluster.dbname,
        user=cluster.user,
        password=cluster.password,
    )


def _rows(cluster: LocalCluster) -> dict[Key, int]:
    leader = cluster.wait_for_leader()
    with psycopg.connect(cluster.conninfo(leader, dbname=cluster.dbname)) as connection:
        return {(client, worker, number): count for client, worker, number, count in connection.execute(_COUNT)}
