"""A pytest fixture that joins pytest-django's test databases and a real Patroni cluster.

pytest loads this module in every run where the library is installed: it imports the standard library and pytest, and
everything else only when the fixture is asked for.

``patroni_django_databases``
    points all aliases of the Django project at the cluster of ``patroni_cluster``, for the session. Whoever wants it
    says so in ``conftest.py``, by the hook that pytest-django has for this::

        @pytest.fixture(scope="session")
        def django_db_modify_db_settings(patroni_django_databases):
            '''Make the test databases on a real cluster.'''
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patroni_db.cluster import LocalCluster

__all__ = ["patroni_django_databases"]


@pytest.fixture(scope="session")
def patroni_django_databases(patroni_cluster: LocalCluster) -> Iterator[LocalCluster]:
    """The session's cluster, to which all aliases of the Django project lead.

    :raises ClusterError: when the cluster does not start
    """
    from django_backend.testing import databases_on  # noqa: PLC0415 - see the module's docstring

    with databases_on(patroni_cluster):
        yield patroni_cluster
