"""The course of the demo: a cluster, clients, a switchover, a crash, and the account."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from patroni_db.cluster import LocalCluster
from patroni_db.demo.clients import CLIENTS, ClientProcess, Project, find_project, stop_all
from patroni_db.demo.errors import DemoError
from patroni_db.demo.history import Fault, FaultKind, History
from patroni_db.demo.journal import JournalReader
from patroni_db.demo.ledger import read_ledger, stock_left
from patroni_db.demo.oracle import LeaderWatch, Oracle, prepare
from patroni_db.demo.report import make_report
from patroni_db.demo.stage import ClientView, Stage, Step, StepState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from patroni_db.demo.clients import ClientSpec
    from patroni_db.demo.report import Report

__all__ = ["Demo", "Screen", "Settings"]

_POLL = 0.05
# Seconds until every client must have had its first success.
_START_TIMEOUT = 30.0
# Seconds after a fault until every client must be at work again: more than any of them waits for a primary.
_RECOVERY_TIMEOUT = 75.0
# Pieces of each product, far more than the clients can order.
_STOCK = 1_000_000


class Screen(Protocol):
    """Shows the demo while it runs."""

    def step(self, step: Step) -> None:
        """Show that a step has begun, has news, or is done."""

    def watch(self, stage: Stage) -> None:
        """Show the clients from now on."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is wanted.

    :param nodes: nodes of the cluster, at least two
    :param synchronous: whether the primary acknowledges a commit only when a replica has it too; without that
        a crash may lose acknowledged writes, whatever a client does
    :param seconds: calm time, in all: before, between and after the faults
    """

    nodes: int = 3
    synchronous: bool = True
    seconds: float = 24.0


class Demo:
    """One demo. It leaves nothing behind, however it ends.

    :param settings: what is wanted
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._screen: Screen | None = None
        replication = "synchronous" if settings.synchronous else "asynchronous"
        self._up = Step(f"Start {settings.nodes} Patroni nodes, {replication}")
        self._migrate = Step("Migrate the example project")
        self._calm = Step("Let Django and SQLAlchemy work")
        self._switchover = Step("Switch over to another primary")
        self._crash = Step("Kill the primary's PostgreSQL")
        self._count = Step("Look for every write")
        self.stage = Stage((self._up, self._migrate, self._calm, self._switchover, self._crash, self._count))

    def run(self, screen: Screen) -> Report:
        """Carry it out.

        :param screen: who shows it
        :raises ConfigError: when the example project, or what it needs, is not here
        :raises ClusterError: when the cluster does not start, or the demo cannot be carried out
        """
        self._screen = screen
        root = find_project()
        settings = self._settings
        with contextlib.ExitStack() as stack:
            with self._doing(self._up) as news:
                cluster = stack.enter_context(LocalCluster(settings.nodes, settings.synchronous, progress=news))
                news(f"led by {cluster.leader}")
            folder = _make_folder(cluster.directory)
            project = Project(root, _environment(cluster))
            nodes = {node.host: node.name for node in cluster.nodes}
            with self._doing(self._migrate) as news:
                project.manage(folder / "manage.log", "migrate", "--no-input", "--verbosity", "0")
                project.manage(folder / "manage.log", "seed", "--stock", str(_STOCK))
                prepare(cluster.conninfo(dbname=cluster.dbname))
                stock = stock_left(cluster.conninfo(dbname=cluster.dbname))
                news(f"{stock:,} pieces on the shelves")
            history = self._observe(cluster, project, folder, nodes)
            with self._doing(self._count) as news:
                leader = cluster.wait_for_leader()
                rows, books = read_ledger(cluster.conninfo(leader, dbname=cluster.dbname), nodes, stock)
                news(f"{len(rows):,} found in {leader}")
            return make_report(history, rows, books, CLIENTS, _kind_of(cluster))

    def _observe(self, cluster: LocalCluster, project: Project, folder: Path, nodes: Mapping[str, str]) -> History:
        conninfos = {node.name: cluster.conninfo(node.name, dbname=cluster.dbname) for node in cluster.nodes}
        faults: list[Fault] = []
        with contextlib.ExitStack() as stack:
            oracle = stack.enter_context(Oracle(conninfos))
            watch = stack.enter_context(LeaderWatch(lambda: cluster.leader, cluster.urls))
            views = tuple(_view_of(spec, folder, nodes) for spec in CLIENTS)
            stage = self.stage
            stage.oracle, stage.watch, stage.clients = oracle, watch, views
            stack.enter_context(stage.polling())
            processes: list[ClientProcess] = []
            stack.callback(stop_all, processes)
            with self._doing(self._calm) as news:
                processes.extend(ClientProcess(spec, project, folder) for spec in CLIENTS)
                self._until_at_work(0.0, processes, _START_TIMEOUT)
                if self._screen is not None:
                    self._screen.watch(stage)
                began = time.monotonic()
                news("all are at work")
                self._rest(processes)
            for step, kind in ((self._switchover, FaultKind.SWITCHOVER), (self._crash, FaultKind.FAILOVER)):
                with self._doing(step) as news:
                    cluster.wait_until_streaming()
                    fault = _make_fault(cluster, kind, news)
                    faults.append(fault)
                    recovered = self._until_taken(oracle, fault)
                    self._until_at_work(recovered, processes, _RECOVERY_TIMEOUT)
                    news(f"{fault.old} \N{RIGHTWARDS ARROW} {fault.new}, all are at work again")
                    self._rest(processes)
            ended = time.monotonic()
            stop_all(processes)
        return History(
            began=began,
            ended=ended,
            faults=tuple(faults),
            probes=oracle.probes(),
            sightings=watch.sightings(),
            writes=tuple(write for view in views for write in view.reader.writes()),
            reads=tuple(read for view in views for read in view.reader.reads()),
        )

    @contextlib.contextmanager
    def _doing(self, step: Step) -> Iterator[Callable[[str], None]]:
        step.state, step.began = StepState.UNDER_WAY, time.monotonic()
        self._show(step)

        def news(text: str) -> None:
            step.note = text
            self._show(step)

        yield news
        step.state, step.ended = StepState.DONE, time.monotonic()
        self._show(step)

    def _show(self, step: Step) -> None:
        if self._screen is not None:
            self._screen.step(step)

    def _rest(self, processes: Sequence[ClientProcess]) -> None:
        """Let a third of the calm time pass."""
        until = time.monotonic() + self._settings.seconds / 3
        while time.monotonic() < until:
            _check(processes)
            time.sleep(_POLL)

    def _until_at_work(self, since: float, processes: Sequence[ClientProcess], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while waiting := [view for view in self.stage.clients if not view.is_at_work(since)]:
            _check(processes)
            if time.monotonic() > deadline:
                names = ", ".join(view.spec.name for view in waiting)
                last = next((error for view in waiting for error in view.reader.last_errors()), "no error was raised")
                raise DemoError(f"not at work after {timeout:g} s: {names}; last of it: {last}")
            time.sleep(_POLL)

    @staticmethod
    def _until_taken(oracle: Oracle, fault: Fault) -> float:
        """Wait until the new primary takes the oracle's writes; return when that was."""
        deadline = time.monotonic() + _RECOVERY_TIMEOUT
        while time.monotonic() < deadline:
            for probe in oracle.probes_of(fault.new):
                if probe.timeline is not None and probe.ended > fault.at:
                    return probe.ended
            time.sleep(_POLL)
        raise DemoError(f"{fault.new} took no write within {_RECOVERY_TIMEOUT:g} s after the {fault.kind}")


def _make_fault(cluster: LocalCluster, kind: FaultKind, news: Callable[[str], None]) -> Fault:
    old = cluster.wait_for_leader()
    if kind is FaultKind.SWITCHOVER:
        news(f"asked Patroni; {old} hands over")
        at = time.monotonic()
        new = cluster.switchover()
    else:
        news(f"SIGKILL to the postmaster of {old}")
        at = time.monotonic()
        cluster.kill_postgres(old)
        new = cluster.wait_for_leader(other_than=old)
    return Fault(kind, at, old, new)


def _view_of(spec: ClientSpec, folder: Path, nodes: Mapping[str, str]) -> ClientView:
    return ClientView(spec, JournalReader(folder / f"{spec.name}.journal", spec.name, nodes))


def _check(processes: Sequence[ClientProcess]) -> None:
    for process in processes:
        process.check()


def _make_folder(parent: Path) -> Path:
    """Make a folder among the cluster's files, which go with the cluster even when this process is killed."""
    folder = parent / "demo"
    folder.mkdir(mode=0o700)
    owner = parent.stat()
    if owner.st_uid != os.geteuid():
        # As root: the servers' user is who removes it.
        os.chown(folder, owner.st_uid, owner.st_gid)
    return folder


def _environment(cluster: LocalCluster) -> dict[str, str]:
    return {
        "PATRONI_API_URL": ",".join(cluster.urls),
        "PGDATABASE": cluster.dbname,
        "PGUSER": cluster.user,
        "PGPASSWORD": cluster.password,
        "DJANGO_SETTINGS_MODULE": "example_project.settings",
    }


def _kind_of(cluster: LocalCluster) -> dict[str, Any]:
    return {
        "nodes": len(cluster.nodes),
        "synchronous": bool(cluster.settings.synchronous),
        "patroni": importlib.metadata.version("patroni"),
        "django": importlib.metadata.version("django"),
        "sqlalchemy": importlib.metadata.version("sqlalchemy"),
    }
