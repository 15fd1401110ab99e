"""The project of settings.py, on the cluster of the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.db import connections

if TYPE_CHECKING:
    from patroni_db.cluster import LocalCluster


@pytest.fixture(scope="session")
def django_db_modify_db_settings(patroni_django_databases: LocalCluster) -> None:
    """Let pytest-django make the test databases on the cluster."""


@pytest.fixture
def routed(monkeypatch: pytest.MonkeyPatch, django_db_setup: None) -> None:
    """Let reads go where they go outside of tests: to the alias of the replicas, which leads to the primary here."""
    monkeypatch.setitem(connections.settings["default"]["TEST"], "PATRONI_TEST_DATABASE", False)
