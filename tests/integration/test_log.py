"""What an operator reads of a switchover: one line for each event and server, no warning of what is as it should be."""

from __future__ import annotations

import collections
import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.django.backends import project
from tests.integration.faults import switchover
from tests.sqlalchemy.clients import make_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patroni_db.cluster import LocalCluster

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(autouse=True)
def free(django_db_blocker: Any, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Let wrappers connect: pytest-django forbids it, as it knows only the project's own database."""
    with django_db_blocker.unblock():
        yield
    # psycopg's pool logs connections as objects, which keep their pool, and that the discovery with its thread.
    caplog.get_records("call").clear()


def test_a_switchovers_log_is_a_story(healthy_patroni_cluster: LocalCluster, caplog: pytest.LogCaptureFixture) -> None:
    cluster = healthy_patroni_cluster
    former = cluster.node(cluster.leader or "")
    client = make_client("dialect", cluster)
    with project(cluster, OPTIONS={"pool": True}) as aliases:
        wrapper = aliases["default"]
        wrapper.ensure_connection()
        wrapper.close()
        assert wrapper.pool is not None
        wrapper.pool.wait()
        client.sessions(4)
        caplog.set_level(logging.INFO)
        switchover(cluster)
        new = cluster.node(cluster.wait_for_leader())
        wrapper.ensure_connection()
        client.sessions(4)
        wrapper.close()
    client.close()
    told = [record for record in caplog.records if record.name.startswith("patroni_db.")]
    messages = [record.getMessage() for record in told if record.name != "patroni_db.cluster"]
    address = f"{former.host}:5432"
    assert any(
        message.startswith("ended ") and message.endswith(f"{former.name} ({address}): {new.name} is the leader")
        for message in messages
    ), messages
    assert [message for message in messages if "writes go on" in message and new.name in message]
    assert set(collections.Counter(messages).values()) == {1}, messages
    assert [message for message in messages if address in message and f"{former.name} ({address})" not in message] == []
    assert [record.getMessage() for record in caplog.records if "discarding closed connection" in record.msg] == []
