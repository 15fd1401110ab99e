"""What the clients need beside a cluster: tables, a network that loses answers, a web server; how they are started."""

from __future__ import annotations

import contextlib
import queue
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from benchmarks.chaos.clients import CREATE, HTTP_THREADS, KNOWN_AS, statement_of
from benchmarks.children import BenchmarkError, Child
from benchmarks.ledger import STOCK, create_ledger
from benchmarks.running import RunningClient
from benchmarks.sites import Site
from benchmarks.web import manage, serve, shop_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.chaos.clients import Application
    from patroni_db.cluster import LocalCluster

__all__ = ["Stage", "set_stage"]

_START_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Where clients are started.

    :param cluster: the cluster
    :param dbname: the database
    :param folder: for logs and histories
    :param address_map: the addresses of the network that loses answers, as ``patroni_address_map`` takes them
    :param web: the address of the example project
    """

    cluster: LocalCluster
    dbname: str
    folder: Path
    address_map: str
    web: str

    @property
    def between(self) -> list[tuple[str, int]]:
        """The addresses of the network that loses answers."""
        pairs = (route.partition("=")[2].rsplit(":", 1) for route in self.address_map.split(","))
        return [(host, int(port)) for host, port in pairs]

    def start(
        self, application: Application, pace: float, *, verbose: bool = False, exactly_once: bool = True
    ) -> RunningClient:
        """Start a client.

        :param pace: seconds between two transactions of a worker
        :param verbose: whether it logs all that it does
        :param exactly_once: see :class:`~benchmarks.sites.Site`
        """
        cluster = self.cluster
        site = Site(
            servers=tuple((node.host, node.port) for node in cluster.nodes),
            urls=cluster.urls,
            haproxy=("", 0),
            dbname=self.dbname,
            user=cluster.user,
            password=cluster.password,
            statement=statement_of(application),
            target=application.target,
            application=KNOWN_AS.format(application.name),
            etcd=cluster.etcd_settings if application.watches_etcd else None,
            address_map=self.address_map if application.once else None,
            web=self.web,
            exactly_once=exactly_once,
        )
        return RunningClient(application.kind(pace), site, self.folder, verbose=verbose)


@contextlib.contextmanager
def set_stage(cluster: LocalCluster, dbname: str, folder: Path, seed: int, losses: float) -> Iterator[Stage]:
    """Make the tables, and start the network and the web server; they end with the block.

    :param dbname: the database, which nothing else uses
    :param seed: of what the network loses
    :param losses: the share of COMMITs that it loses
    :raises BenchmarkError: one of them did not start
    """
    shop = shop_environment(cluster.urls, dbname, cluster.user, cluster.password)
    manage(shop, "migrate", "--no-input")
    manage(shop, "seed", "--stock", str(STOCK))
    with psycopg.connect(cluster.conninfo(dbname=dbname), autocommit=True) as connection:
        connection.execute(CREATE)
        connection.execute(sql.SQL("GRANT ALL ON chaos_writes TO {}").format(sql.Identifier(cluster.user)))
        create_ledger(connection, cluster.user)
    heard: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    wish = {"servers": [(node.host, node.port) for node in cluster.nodes], "share": losses, "seed": seed}
    with Child("answers", wish, folder / "answers.log", heard.put):
        try:
            address_map = heard.get(timeout=_START_TIMEOUT)["address_map"]
        except queue.Empty:
            raise BenchmarkError("the network that loses answers did not start") from None
        shop["PATRONI_ADDRESS_MAP"] = address_map
        with serve(shop, folder / "gunicorn.log", HTTP_THREADS) as web:
            yield Stage(cluster, dbname, folder, address_map, web)
