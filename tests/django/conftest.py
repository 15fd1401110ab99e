"""The project of settings.py, on the cluster of the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.db import connections

from django_backend.clusters import release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patroni_db.cluster import LocalCluster


@pytest.fixture(scope="session")
def django_db_modify_db_settings(patroni_cluster: LocalCluster) -> Iterator[None]:
    """Tell the settings where the cluster is, before pytest-django makes the test databases."""
    for alias in ("default", "replica"):
        entry = connections.settings[alias]
        entry.update(NAME=patroni_cluster.dbname, USER=patroni_cluster.user, PASSWORD=patroni_cluster.password)
        entry["OPTIONS"]["patroni_urls"] = list(patroni_cluster.urls)
    yield
    for alias in ("default", "replica"):
        connections[alias].close()
        del connections[alias]
    release()


@pytest.fixture
def routed(monkeypatch: pytest.MonkeyPatch, django_db_setup: None) -> None:
    """Let reads go where they go outside of tests: to the alias of the replicas, which leads to the primary here."""
    monkeypatch.setitem(connections.settings["default"]["TEST"], "PATRONI_TEST_DATABASE", False)
