"""Django's test databases on a real Patroni cluster: for any test runner, and a runner for ``manage.py test``.

With pytest-django, see :mod:`django_backend.pytest_plugin`.
"""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any, Final

from django.db import connections
from django.test.runner import DiscoverRunner

from django_backend.base import DatabaseWrapper
from django_backend.clusters import end, release

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from patroni_db.cluster import LocalCluster

__all__ = ["ClusterRunner", "databases_on"]

# What tells where a cluster is, who may ask it and how its members differ: true of one cluster only.
_OF_ANOTHER_CLUSTER: Final = frozenset(
    {
        *(f"patroni_{name}" for name in ("scope", "urls", "ca", "cert", "key", "user", "password", "namespace")),
        *(f"patroni_{name}" for name in ("allowed_hosts", "port", "address_map", "fallback_hosts", "tags")),
        *("service", "passfile", "channel_binding", "gssencmode", "krbsrvname", "require_auth"),
        *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "sslcrldir", "sslnegotiation"),
    }
)
_ETCD: Final = "patroni_etcd"


@contextlib.contextmanager
def databases_on(cluster: LocalCluster, aliases: Iterable[str] | None = None) -> Iterator[None]:
    """Point Django's aliases at a cluster inside the ``with`` block; make the test databases in it.

    `USER`, `PASSWORD`, `HOST` and `PORT` become the cluster's. Of `OPTIONS` remains what says how to use a cluster
    (target, timeouts, pool), and not what says where the one of the settings is (TLS, allowed hosts, ports). `NAME`
    remains: the test database's name comes from it.

    Connections of this thread are closed at both ends. The settings are as before at the end.

    :param cluster: a running one
    :param aliases: which; by default all whose engine is ours
    """
    chosen = [alias for alias in connections if _is_ours(alias)] if aliases is None else list(aliases)
    before = {alias: dict(connections.settings[alias]) for alias in chosen}
    _forget(chosen)
    for alias in chosen:
        entry = connections.settings[alias]
        options = {name: copy.deepcopy(value) for name, value in entry["OPTIONS"].items() if not _is_elsewhere(name)}
        options["patroni_urls"] = list(cluster.urls)
        entry.update(USER=cluster.user, PASSWORD=cluster.password, HOST="", PORT="", OPTIONS=options)
        # An alias without a name is the login's own database, of which no test database can be made.
        entry["NAME"] = entry["NAME"] or cluster.dbname
    try:
        yield
    finally:
        # Django keeps wrappers of before the tests to their end, and each keeps a discovery alive.
        end(chosen)
        _forget(chosen)
        for alias, entry in before.items():
            connections.settings[alias].update(entry)


def _is_ours(alias: str) -> bool:
    return isinstance(connections[alias], DatabaseWrapper)


def _is_elsewhere(option: str) -> bool:
    return option in _OF_ANOTHER_CLUSTER or option.startswith(_ETCD)


def _forget(aliases: Iterable[str]) -> None:
    """Close this thread's connections and the pools; the next wrappers read the settings anew."""
    for alias in aliases:
        connection: Any = connections[alias]
        connection.close()
        connection.close_pool()
        del connections[alias]
    release()


class ClusterRunner(DiscoverRunner):
    """Django's test runner with a cluster of its own, which begins before the test databases and ends after them.

    ``TEST_RUNNER = "django_backend.testing.ClusterRunner"``. ``--parallel`` shares the cluster.
    """

    def setup_databases(self, **kwargs: Any) -> Any:
        """Start the cluster, and make the test databases in it."""
        from patroni_db.cluster import LocalCluster  # noqa: PLC0415 - of the extra `cluster`

        self._cluster = contextlib.ExitStack()
        aliases = kwargs.get("aliases")
        if aliases is not None and not aliases:
            return super().setup_databases(**kwargs)  # no test needs a database
        with contextlib.ExitStack() as stack:
            stack.enter_context(databases_on(stack.enter_context(LocalCluster())))
            made = super().setup_databases(**kwargs)
            self._cluster = stack.pop_all()
        return made

    def teardown_databases(self, old_config: Any, **kwargs: Any) -> None:
        """Remove the test databases, and end the cluster."""
        with self._cluster:
            super().teardown_databases(old_config, **kwargs)
