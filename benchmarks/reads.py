"""What reading from replicas does: how fast, and how much of the work is still the primary's.

Users read one account by its key, or write as pgbench's simple update does, through Django and SQLAlchemy; their reads
go to the primary alone, to one replica, or to two::

    python -m benchmarks.reads --seconds 5 --repeat 3
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import queue
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg

from benchmarks.children import BenchmarkError, Child
from benchmarks.machine import about_machine, about_versions
from benchmarks.read_client import CREATE, SUBJECTS, Wish
from benchmarks.read_figures import Done, Load, figures_of, median_of, table
from patroni_db.cluster import LocalCluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.read_figures import Figures
    from patroni_db.cluster import Node

__all__ = ["main"]

_OUTPUT = Path("build/benchmarks/reads")
_ACCOUNTS_OF_SCALE = 10_000
_READY_TIMEOUT = 60.0
_END_TIMEOUT = 30.0
_POLL = 0.05
# The tag by which one replica is told from the other.
_TAG = "bench"
_PLACEMENTS = {"primary": "the primary", "one": "one replica", "two": "two replicas"}

_TRANSACTIONS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s"
_CONNECTED = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"


@dataclass(frozen=True, slots=True)
class Cell:
    """One way to read from one set of servers.

    :param subject: the client
    :param placement: where reads go
    :param causal: whether users see what they wrote
    """

    subject: str
    placement: str
    causal: bool

    def __str__(self) -> str:
        return f"{self.subject} {self.placement}{' causal' if self.causal else ''}"

    @property
    def label(self) -> str:
        """What the table calls it."""
        return f"{SUBJECTS[self.subject][0]}: {_PLACEMENTS[self.placement]}"


class Stage:
    """The cluster, its accounts, and what its servers had to do.

    :param cluster: of three nodes, each with its name as a tag
    :param accounts: how many
    """

    def __init__(self, cluster: LocalCluster, accounts: int) -> None:
        self._cluster = cluster
        self._accounts = accounts
        self.primary = cluster.wait_for_leader()
        self.one_replica = next(node.name for node in cluster.nodes if node.name != self.primary)
        self._place = {node.name: f"{node.host}:{node.port}" for node in cluster.nodes}
        self._admins: dict[str, psycopg.Connection[Any]] = {}

    @contextlib.contextmanager
    def filled(self) -> Iterator[None]:
        """Fill the tables, and have all replicas show them."""
        with contextlib.ExitStack() as stack:
            for name in self._place:
                conninfo = self._cluster.conninfo(name, dbname="postgres")
                self._admins[name] = stack.enter_context(psycopg.connect(conninfo, autocommit=True))
            credentials = {"user": self._cluster.user, "password": self._cluster.password}
            conninfo = self._cluster.conninfo(self.primary, dbname=self._cluster.dbname, **credentials)
            with psycopg.connect(conninfo, autocommit=True) as connection:
                connection.execute(CREATE.format(accounts=self._accounts).encode())
            with psycopg.connect(self._cluster.conninfo(self.primary, dbname=self._cluster.dbname)) as connection:
                connection.autocommit = True
                connection.execute("VACUUM ANALYZE bench_account")
            self.wait_for_replicas()
            yield

    def wait_for_replicas(self) -> None:
        """Wait until every replica has replayed what there is, so that no turn works for the one before it.

        :raises BenchmarkError: one does not get so far
        """
        here = self._ask(self.primary, "SELECT pg_current_wal_flush_lsn()::text")
        behind = "SELECT pg_last_wal_replay_lsn() < %s::pg_lsn"
        for name in self._place:
            if name != self.primary:
                self._until(lambda name=name: not self._ask(name, behind, here), f"{name} to replay")

    def transactions(self) -> dict[str, int]:
        """Return how many transactions each server has counted in the clients' database; no client is connected."""
        found = {}
        for name, place in self._place.items():
            # A server's process counts at the latest when it ends.
            self._until(lambda name=name: not self._ask(name, _CONNECTED, self._cluster.dbname), f"{name} to be idle")
            found[place] = int(self._ask(name, _TRANSACTIONS, self._cluster.dbname))
        return found

    def cpu(self) -> dict[str, float]:
        """Return how many seconds the processes of each server have been on a processor."""
        return {self._place[node.name]: _cpu_of_postgres(node) for node in self._cluster.nodes}

    def place_of_primary(self) -> str:
        """Return where the primary is.

        :raises BenchmarkError: it is another one than at the start
        """
        if self._cluster.leader != self.primary:
            raise BenchmarkError("the primary changed: what was measured is of no use")
        return self._place[self.primary]

    def wish(self, cell: Cell, seed: int, history: Path, arguments: argparse.Namespace) -> Wish:
        """Return what a client process of `cell` is to do."""
        return Wish(
            subject=cell.subject,
            replicas=cell.placement != "primary",
            tags=f"{_TAG}={self.one_replica}" if cell.placement == "one" else "",
            causal=cell.causal,
            threads=arguments.threads,
            writes=arguments.writes,
            accounts=self._accounts,
            seed=seed,
            urls=tuple(self._cluster.urls),
            user=self._cluster.user,
            password=self._cluster.password,
            history=str(history),
        )

    def _ask(self, name: str, question: str, *values: object) -> Any:
        row = self._admins[name].execute(question.encode(), values).fetchone()
        return None if row is None else row[0]

    @staticmethod
    def _until(done: Any, what: str) -> None:
        deadline = time.monotonic() + _END_TIMEOUT
        while not done():
            if time.monotonic() > deadline:
                raise BenchmarkError(f"waited {_END_TIMEOUT:g} s in vain for {what}")
            time.sleep(_POLL)


def _cpu_of_postgres(node: Node) -> float:
    """Return the processor seconds of a server: its postmaster, the processes it has, and those that have ended."""
    pid = int((node.data_dir / "postmaster.pid").read_text(encoding="ascii").split("\n", 1)[0])
    postmaster = psutil.Process(pid)
    times = postmaster.cpu_times()
    spent: float = times.user + times.system + times.children_user + times.children_system
    return spent + sum(map(_cpu_of, postmaster.children()))


def _cpu_of(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0  # ended just now: for a moment it is in nobody's account
    return float(times.user + times.system)


def _turn(stage: Stage, cell: Cell, seed: int, arguments: argparse.Namespace) -> Figures:
    """Let fresh processes do the work of one cell for a while."""
    folder: Path = arguments.output
    stage.wait_for_replicas()
    counted = stage.transactions()
    heard: queue.SimpleQueue[object] = queue.SimpleQueue()
    histories = [folder / f"turn-{number}.json" for number in range(arguments.processes)]
    with contextlib.ExitStack() as stack:
        children = []
        for number, history in enumerate(histories):
            wish = dataclasses.asdict(stage.wish(cell, seed * arguments.processes + number, history, arguments))
            child = Child("read_client", wish, folder / f"client-{number}.log", heard.put)
            children.append(stack.enter_context(child))
        _wait_until_ready(children, heard)
        before, clients = stage.cpu(), _cpu_of_clients(children)
        began = time.monotonic()
        time.sleep(arguments.seconds)  # what is measured
        ended = time.monotonic()
        after, clients = stage.cpu(), _cpu_of_clients(children) - clients
        for child in children:
            child.check()
            child.tell_to_stop()
        for child in children:
            child.end(time.monotonic() + _END_TIMEOUT)
    done = [Done(*one) for history in histories for one in json.loads(history.read_text(encoding="utf-8"))]
    for history in histories:
        history.unlink()
    load = Load(
        primary=stage.place_of_primary(),
        transactions={place: count - counted[place] for place, count in stage.transactions().items()},
        cpu={place: after[place] - before[place] for place in after},
        clients_cpu=clients,
    )
    return figures_of(done, load, began, ended)


def _wait_until_ready(children: Sequence[Child], heard: queue.SimpleQueue[object]) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT
    ready = 0
    while ready < len(children):
        for child in children:
            child.check()
        if time.monotonic() > deadline:
            raise BenchmarkError("\n".join(["clients do not get to work", *(child.said() for child in children)]))
        with contextlib.suppress(queue.Empty):
            heard.get(timeout=_POLL)
            ready += 1


def _cpu_of_clients(children: Sequence[Child]) -> float:
    return sum(_cpu_of(psutil.Process(child.pid)) for child in children)


def _cells(arguments: argparse.Namespace) -> list[Cell]:
    placements = [name for name in _PLACEMENTS if name in (arguments.placement or _PLACEMENTS)]
    subjects = [name for name in SUBJECTS if name in (arguments.client or SUBJECTS)]
    cells = [Cell(subject, placement, causal=False) for subject in subjects for placement in placements]
    if arguments.causal:
        cells += [Cell(cell.subject, cell.placement, causal=True) for cell in cells if cell.placement != "primary"]
    return cells


def _report(turns: Mapping[Cell, Sequence[Figures]], arguments: argparse.Namespace) -> str:
    users = arguments.processes * arguments.threads
    mix = f"{1 - arguments.writes:.0%} point reads, {arguments.writes:.0%} writing transactions"
    accounts = f"{arguments.scale * _ACCOUNTS_OF_SCALE:,} accounts"
    times = f"{arguments.repeat} turns of {arguments.seconds:g} s each"
    who = f"{users} users in {arguments.processes} processes"
    parts = [f"{about_machine()}. {about_versions()}. {mix}; {who}, {accounts}, {times}."]
    for causal, title in ((False, "### Reads"), (True, "### Reads with causal tokens")):
        rows = [(cell.label, of) for cell, of in turns.items() if cell.causal is causal]
        if rows:
            parts += [title, table(rows, causal=causal)]
    return "\n\n".join(parts) + "\n"


def _draw(turns: Mapping[Cell, Sequence[Figures]], path: Path) -> None:
    from benchmarks.read_plots import plot  # noqa: PLC0415 - slow to load

    clients = [name for name in SUBJECTS if any(cell.subject == name for cell in turns)]
    bars = {
        _PLACEMENTS[placement]: [turns.get(Cell(client, placement, causal=False), ()) for client in clients]
        for placement in _PLACEMENTS
    }
    plot([SUBJECTS[client][0].replace("`", "") for client in clients], bars, path)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reads", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of one turn, by default 5")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="turns of each, by default 3")
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="of clients, by default 2")
    parser.add_argument("--threads", type=int, default=4, metavar="N", help="in each, by default 4")
    parser.add_argument("--writes", type=float, default=0.1, metavar="SHARE", help="that write, by default 0.1")
    accounts = f"{_ACCOUNTS_OF_SCALE:,} accounts each, by default 10"
    parser.add_argument("--scale", type=int, default=10, metavar="N", help=accounts)
    parser.add_argument("--client", action="append", choices=list(SUBJECTS), help="repeatable; by default all")
    parser.add_argument("--placement", action="append", choices=list(_PLACEMENTS), help="repeatable; by default all")
    parser.add_argument("--causal", action="store_true", help="also users who see what they wrote")
    parser.add_argument("--output", type=Path, default=_OUTPUT, metavar="DIR", help=f"by default {_OUTPUT}")
    arguments = parser.parse_args(words)
    if not 0 <= arguments.writes < 1:
        parser.error("--writes is a share, from 0 to less than 1")
    if arguments.seconds <= 0 or min(arguments.repeat, arguments.processes, arguments.threads, arguments.scale) < 1:
        parser.error("--seconds, --repeat, --processes, --threads and --scale must be positive")
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    :param words: the command line; by default this process's
    :returns: the exit status
    """
    arguments = _arguments(words)
    arguments.output.mkdir(parents=True, exist_ok=True)
    cells = _cells(arguments)
    turns: dict[Cell, list[Figures]] = {cell: [] for cell in cells}
    rng = random.Random(0)  # noqa: S311 - an order, no secret
    tags = {name: {_TAG: name} for name in ("n1", "n2", "n3")}
    with LocalCluster(3, tags=tags, progress=lambda text: print(text, file=sys.stderr)) as cluster:
        cluster.wait_until_streaming()
        stage = Stage(cluster, arguments.scale * _ACCOUNTS_OF_SCALE)
        with stage.filled():
            for number in range(arguments.repeat):
                for cell in rng.sample(cells, len(cells)):
                    print(f"{number + 1}/{arguments.repeat} {cell}", file=sys.stderr)
                    turns[cell].append(_turn(stage, cell, number, arguments))
    text = _report(turns, arguments)
    (arguments.output / "summary.md").write_text(text, encoding="utf-8")
    written = [
        dataclasses.asdict(cell)
        | {"median": dataclasses.asdict(median_of(of)), "turns": list(map(dataclasses.asdict, of))}
        for cell, of in turns.items()
    ]
    (arguments.output / "figures.json").write_text(json.dumps(written, indent=1), encoding="utf-8")
    _draw(turns, arguments.output / "reads.png")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
