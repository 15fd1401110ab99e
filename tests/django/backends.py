"""Wrappers of the engine outside the project's ``DATABASES``, to try settings and faults with."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.db.utils import ConnectionHandler

from django_backend.clusters import release
from django_backend.config import databases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_backend.base import DatabaseWrapper
    from patroni_db.cluster import LocalCluster

__all__ = ["Project", "entry", "executed_on", "project"]


class Project:
    """What ``django.db.connections`` is to a project: a wrapper for each alias and thread."""

    def __init__(self, entries: dict[str, dict[str, Any]]) -> None:
        self.handler = ConnectionHandler(entries)

    def __getitem__(self, alias: str) -> DatabaseWrapper:
        wrapper: DatabaseWrapper = self.handler[alias]  # type: ignore[assignment]  # all entries have our engine
        return wrapper

    def close(self) -> None:
        """Close this thread's connections, and all pools."""
        for alias in self.handler:
            self[alias].close()
            self[alias].close_pool()
            del self.handler[alias]


def entry(**changes: Any) -> dict[str, Any]:
    """Return a complete entry of DATABASES that nothing listens to."""
    given = {
        "ENGINE": "django_backend",
        "NAME": "app",
        **changes,
        "OPTIONS": {"patroni_urls": ["http://127.0.0.1:9"], **changes.get("OPTIONS", {})},
    }
    return ConnectionHandler({"default": given}).settings["default"]  # type: ignore[no-any-return]


@contextlib.contextmanager
def executed_on() -> Iterator[list[str]]:
    """Return the aliases of the statements that this thread executes within, in their order."""
    aliases: list[str] = []

    def note(execute: Any, sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        aliases.append(context["connection"].alias)
        return execute(sql, params, many, context)

    with connections["default"].execute_wrapper(note), connections["replica"].execute_wrapper(note):
        yield aliases


@contextlib.contextmanager
def project(cluster: LocalCluster, **settings: Any) -> Iterator[Project]:
    """Return the aliases ``default`` and ``replica`` of `cluster`, with more `settings` for both.

    Clean up in the thread that asked; other threads close what they opened.
    """
    options = {"patroni_urls": list(cluster.urls), "patroni_failover_timeout": 45, **settings.pop("OPTIONS", {})}
    login = {"NAME": cluster.dbname, "USER": cluster.user, "PASSWORD": cluster.password}
    aliases = Project(databases(OPTIONS=options, **{**login, **settings}))
    try:
        yield aliases
    finally:
        aliases.close()
        release()
