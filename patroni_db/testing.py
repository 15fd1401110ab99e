"""pytest fixtures on a real Patroni cluster, for the tests of projects that use this library.

pytest loads this module in every run where the library is installed: it imports the standard library and
pytest, and everything else only when a fixture is asked for.

``patroni_cluster``
    a running :class:`~patroni_db.cluster.LocalCluster`, one for the whole test session
    (with pytest-xdist one for each worker)
``patroni_urls``
    the URLs of its REST APIs, for ``patroni_urls`` settings
``patroni_database_url``
    a URL for SQLAlchemy's ``create_engine`` and ``create_async_engine``: the application's role and database, on the
    primary. ``patroni_target`` and the like may be appended with ``&``
``healthy_patroni_cluster``
    the same cluster, healed before the test: frozen nodes thawed, everything started, configuration restored,
    every replica streaming. For tests that make faults, and those that run after them

A cluster that cannot be started is an error of the test, not a skip: a suite that silently tests nothing is worse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

    from patroni_db.cluster import LocalCluster

__all__ = ["healthy_patroni_cluster", "patroni_cluster", "patroni_database_url", "patroni_urls", "pytest_addoption"]

_SYNCHRONOUS: dict[str, bool | Literal["quorum"]] = {
    "0": False,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "on": True,
    "quorum": "quorum",
    "true": True,
    "yes": True,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options and ini settings of the cluster that the fixtures start."""
    group = parser.getgroup("patroni-db", "a local Patroni cluster (patroni-db)")
    group.addoption(
        "--patroni-nodes",
        dest="patroni_db_nodes",
        metavar="N",
        help="nodes of the cluster behind the patroni_cluster fixture (default: ini patroni_nodes, or 3)",
    )
    group.addoption(
        "--patroni-synchronous",
        dest="patroni_db_synchronous",
        metavar="MODE",
        nargs="?",
        const="true",
        help="its synchronous replication: true, false or quorum (default: ini patroni_synchronous, or false)",
    )
    parser.addini("patroni_nodes", "nodes of the cluster behind the patroni_cluster fixture", default="3")
    parser.addini("patroni_synchronous", "its synchronous replication: true, false or quorum", default="false")


def _wished(config: pytest.Config) -> tuple[int, bool | Literal["quorum"]]:
    nodes = config.getoption("patroni_db_nodes") or config.getini("patroni_nodes")
    synchronous = config.getoption("patroni_db_synchronous") or config.getini("patroni_synchronous")
    try:
        number = int(nodes)
    except ValueError:
        raise pytest.UsageError(f"patroni_nodes: must be a whole number, not {nodes!r}") from None
    try:
        return number, _SYNCHRONOUS[str(synchronous).lower()]
    except KeyError:
        raise pytest.UsageError(f"patroni_synchronous: must be true, false or quorum, not {synchronous!r}") from None


@pytest.fixture(scope="session")
def patroni_cluster(pytestconfig: pytest.Config) -> Iterator[LocalCluster]:
    """A running local Patroni cluster, stopped after the last test.

    :raises ClusterError: when it does not start, or PostgreSQL, Patroni or etcd are not installed
    """
    from patroni_db.cluster import LocalCluster  # noqa: PLC0415 - see the module's docstring

    nodes, synchronous = _wished(pytestconfig)
    with LocalCluster(nodes, synchronous) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def patroni_urls(patroni_cluster: LocalCluster) -> tuple[str, ...]:
    """The REST API URLs of the cluster's nodes."""
    return patroni_cluster.urls


@pytest.fixture(scope="session")
def patroni_database_url(patroni_cluster: LocalCluster) -> str:
    """A SQLAlchemy URL of the cluster's application database, the password included."""
    from urllib.parse import quote  # noqa: PLC0415 - as above

    cluster = patroni_cluster
    login = f"{cluster.user}:{quote(cluster.password)}"
    return f"postgresql+patroni://{login}@/{cluster.dbname}?patroni_urls={','.join(cluster.urls)}"


@pytest.fixture
def healthy_patroni_cluster(patroni_cluster: LocalCluster) -> LocalCluster:
    """The session's cluster, with every earlier fault undone; the leader may be any node."""
    patroni_cluster.heal()
    return patroni_cluster
