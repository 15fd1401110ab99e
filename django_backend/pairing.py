"""Which alias reads from replicas of which: decided from ``DATABASES`` alone. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from django.db.backends.base.creation import TEST_DATABASE_PREFIX

from django_backend.options import declared_config
from patroni_db.selection import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from patroni_db.config import PatroniConfig

__all__ = ["Alias", "cluster_of", "pair"]


@dataclasses.dataclass(frozen=True, slots=True)
class Alias:
    """One entry of ``DATABASES`` with this engine.

    :param name: its key
    :param config: its declared ``patroni_*`` settings
    :param database: the database's name; while tests run, the test database's
    :param test_database: the name its test database has
    :param mirror: the alias it mirrors in tests
    """

    name: str
    config: PatroniConfig
    database: str | None
    test_database: str | None
    mirror: str | None

    @classmethod
    def of(cls, name: str, entry: Mapping[str, Any]) -> Alias:
        """Return the alias that `entry` of ``DATABASES`` describes.

        :raises ImproperlyConfigured: naming a wrong setting
        """
        test = entry.get("TEST") or {}
        database = entry.get("NAME") or None
        test_database = test.get("NAME") or (database and f"{TEST_DATABASE_PREFIX}{database}")
        return cls(name, declared_config(name, entry), database, test_database, test.get("MIRROR") or None)

    @property
    def writes(self) -> bool:
        """Whether it is for the primary."""
        return self.config.target is Target.PRIMARY


def cluster_of(alias: Alias, aliases: Iterable[Alias]) -> frozenset[str]:
    """Return the URLs of all `aliases` of the cluster of `alias`: those that share a URL, directly or through others.

    Two aliases of one cluster need not name the same seeds; two clusters never share one.
    """
    urls = set(alias.config.urls)
    others = [set(other.config.urls) for other in aliases]
    while grown := [other for other in others if other & urls and not other <= urls]:
        urls.update(*grown)
    return frozenset(urls)


def pair(aliases: Iterable[Alias]) -> dict[str, str]:
    """Return the primary's alias for the name of each alias that reads from replicas.

    It is the one mirrored in tests when that is of the same cluster, else one of the same cluster and
    database. An alias without a partner is left out.
    """
    known = tuple(aliases)
    primaries = sorted((a for a in known if a.writes), key=lambda a: a.name != "default")
    partners: dict[str, str] = {}
    for reader in known:
        if reader.writes:
            continue
        cluster = cluster_of(reader, known)
        near = [a for a in primaries if cluster_of(a, known) == cluster]
        best = max(near, key=lambda a: _closeness(reader, a), default=None)
        if best is not None and _closeness(reader, best):
            partners[reader.name] = best.name
    return partners


def _closeness(reader: Alias, primary: Alias) -> int:
    if reader.mirror == primary.name:
        return 3
    if reader.database == primary.database:
        return 2
    # While test databases are made, one of the two has its test name already.
    names = {primary.database, primary.test_database}
    return int(bool({reader.database, reader.test_database} & names - {None}))
