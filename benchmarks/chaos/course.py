"""The course of a chaos test: a cluster, clients, one round of faults after the other, the account."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from benchmarks.chaos.actions import Actor, Impossible, UnderWay
from benchmarks.chaos.clients import CLIENTS
from benchmarks.chaos.collecting import imbalance_of, operations_of, rows_of
from benchmarks.chaos.holdings import take_census
from benchmarks.chaos.schedule import schedule
from benchmarks.chaos.stage import set_stage
from benchmarks.chaos.verdict import Client, History
from benchmarks.children import BenchmarkError, Child
from benchmarks.partition import Partition, control_group
from benchmarks.records import Probe
from benchmarks.running import RunningClient, check_all, stop_all, wait_until
from patroni_db.cluster import LocalCluster
from patroni_db.demo.oracle import LeaderWatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.chaos.incidents import Incident
    from benchmarks.chaos.schedule import Kind, Round

__all__ = ["Settings", "clients_of", "run"]

# All clients log in at the same moment, on the processors of the servers: see benchmarks.experiment.
_PARAMETERS = {"scram_iterations": 1}
# Seconds.
_POLL = 0.1
_START_TIMEOUT = 60.0
_HEAL_TIMEOUT = 120.0
_AT_WORK_TIMEOUT = 75.0
_SETTLE = 2.0
# Of all COMMITs.
_LOSSES = 0.02

_CREATE_ORACLE = "CREATE TABLE bench_oracle AS SELECT 0::bigint AS beat"


@dataclass(frozen=True, slots=True)
class Settings:
    """What is wanted.

    :param seed: of the faults
    :param seconds: for how long new rounds begin
    :param synchronous: whether replication is synchronous
    :param kinds: of faults
    :param partition: whether a host can be cut off
    :param pace: seconds that a worker pauses
    :param debug: whether the clients log all that they do
    """

    seed: int
    seconds: float
    synchronous: bool
    kinds: tuple[Kind, ...]
    partition: bool
    pace: float
    debug: bool


def clients_of(settings: Settings) -> tuple[Client, ...]:
    """Return the clients as the rules know them."""
    kinds = [(application, application.kind(settings.pace)) for application in CLIENTS]
    return tuple(
        Client(a.name, a.writes, kind.workers, kind.pace, a.sessions, a.spare_threads, a.once) for a, kind in kinds
    )


def run(settings: Settings, folder: Path, say: Callable[[str], None]) -> History:
    """Carry it out.

    :param folder: where logs go
    :param say: told what goes on
    :raises BenchmarkError: it could not be carried out, or a client has ended
    :raises ClusterError: the cluster did not do what it should
    """
    with contextlib.ExitStack() as stack:
        say("starting a cluster")
        group = stack.enter_context(control_group()) if settings.partition else None
        cluster = stack.enter_context(
            LocalCluster(3, settings.synchronous, parameters=_PARAMETERS, directory=folder / "cluster")
        )
        partition = None
        if group is not None:
            say("restarting a node in a control group of its own")
            partition = stack.enter_context(Partition(cluster, group, lead=False))
        _prepare(cluster)
        return _Course(settings, cluster, partition, folder, say).run()


def _prepare(cluster: LocalCluster) -> None:
    with psycopg.connect(cluster.conninfo(dbname=cluster.dbname), autocommit=True) as connection:
        connection.execute(_CREATE_ORACLE)
    cluster.wait_until_streaming()


@dataclass(slots=True)
class _Course:
    """One chaos test on a cluster that is up."""

    settings: Settings
    cluster: LocalCluster
    partition: Partition | None
    folder: Path
    say: Callable[[str], None]
    running: list[RunningClient] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    calm: list[tuple[float, float]] = field(default_factory=list)

    def run(self) -> History:
        cluster = self.cluster
        # A host that was cut off does not answer when it is back: then the oracle must not wait for its kernel.
        conninfos = {
            node.name: cluster.conninfo(node.name, dbname=cluster.dbname, tcp_user_timeout=1000)
            for node in cluster.nodes
        }
        with contextlib.ExitStack() as stack:
            oracle = stack.enter_context(
                Child("oracle", conninfos, self.folder / "oracle.log", lambda said: self.probes.append(Probe(*said)))
            )
            watch = stack.enter_context(LeaderWatch(lambda: cluster.leader, cluster.urls))
            stage = stack.enter_context(set_stage(cluster, cluster.dbname, self.folder, self.settings.seed, _LOSSES))
            self.say(f"{cluster.wait_for_leader()} leads; starting {len(CLIENTS)} clients")
            self.running += [
                stack.enter_context(stage.start(application, self.settings.pace, verbose=self.settings.debug))
                for application in CLIENTS
            ]
            self._wait_for_work(0.0, _START_TIMEOUT)
            self.say("rehearsing: one switchover, so that what is made on first need is there")
            cluster.switchover()
            self._settle()
            before = take_census(cluster, self.running, stage.between)
            began = time.monotonic()
            self._rounds(began)
            after = take_census(cluster, self.running, stage.between)
            ended = time.monotonic()
            stop_all(self.running)
            oracle.tell_to_stop()
        self.say("looking for every write")
        names = {node.host: node.name for node in cluster.nodes}
        with psycopg.connect(cluster.conninfo(cluster.wait_for_leader(), dbname=cluster.dbname)) as connection:
            rows, imbalance = rows_of(connection, names), imbalance_of(connection)
        return History(
            began=began,
            ended=ended,
            incidents=tuple(self.incidents),
            calm=tuple(self.calm),
            probes=tuple(self.probes),
            sightings=watch.sightings(),
            operations=tuple(o for client in self.running for o in operations_of(client, names)),
            rows=rows,
            before=before,
            after=after,
            imbalance=imbalance,
        )

    def _rounds(self, began: float) -> None:
        until = began + self.settings.seconds
        calm_since = began
        for number, round_ in enumerate(schedule(self.settings.seed, self.settings.kinds), start=1):
            wait_until(None, self.running, round_.calm, "")
            if time.monotonic() > until:
                break
            self.calm.append((calm_since, time.monotonic()))
            self._make(number, round_)
            self._settle()
            calm_since = time.monotonic()
        self.calm.append((calm_since, time.monotonic()))

    def _make(self, number: int, round_: Round) -> None:
        actor = Actor(self.cluster, self.partition)
        under_way: list[UnderWay] = []
        to_make = list(round_.faults)
        start = time.monotonic()
        while to_make or under_way:
            now = time.monotonic()
            for planned in [p for p in to_make if now >= start + p.after]:
                to_make.remove(planned)
                try:
                    fault = actor.make(planned, under_way)
                except Impossible as reason:
                    self.say(f"round {number}: no {planned.kind}: {reason}")
                    continue
                under_way.append(fault)
                self.say(f"round {number}: {fault.incident()} for {planned.hold:.1f} s")
            for fault in [f for f in under_way if f.lapses is not None and now >= f.lapses]:
                actor.lapse(fault)
            for fault in [f for f in under_way if now >= f.due]:
                under_way.remove(fault)
                actor.undo(fault)
                self.incidents.append(fault.incident())
            check_all(self.running)
            time.sleep(_POLL)

    def _settle(self) -> None:
        """Wait until nothing is broken and everybody is at work."""
        self.cluster.heal(_HEAL_TIMEOUT)
        self._wait_for_work(time.monotonic(), _AT_WORK_TIMEOUT)
        wait_until(None, self.running, _SETTLE, "")

    def _wait_for_work(self, since: float, timeout: float) -> None:
        try:
            wait_until(
                lambda: all(client.oldest_success > since for client in self.running), self.running, timeout, "work"
            )
        except BenchmarkError:
            if since == 0.0:
                raise
            # Whoever is not at work is behind: the account tells who, and for how long.
            idle = [client.kind.name for client in self.running if client.oldest_success <= since]
            self.say(f"not at work after {timeout:g} s: {', '.join(idle)}")
