"""Nothing that hangs keeps anybody longer than ``patroni_failover_timeout`` allows, and Ctrl-C works meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from patroni_db.acquisition import acquire, acquire_async
from patroni_db.config import PatroniConfig
from patroni_db.discovery import discovery_for
from patroni_db.errors import NoPrimaryError
from patroni_db.libpq import attempt_params

if TYPE_CHECKING:
    from collections.abc import Callable

    from patroni_db.acquisition import Attempt
    from patroni_db.cluster import LocalCluster

PATIENCE = 60.0


def connector(cluster: LocalCluster) -> Callable[[Attempt], psycopg.Connection]:
    login = {"dbname": cluster.dbname, "user": cluster.user, "password": cluster.password}
    return lambda attempt: psycopg.connect(**attempt_params(login, attempt))


def short(cluster: LocalCluster, **settings: Any) -> PatroniConfig:
    return PatroniConfig(**{"urls": cluster.urls, "failover_timeout": 0.5, **settings})


def test_a_name_that_is_never_resolved(healthy_patroni_cluster: LocalCluster) -> None:
    config = short(healthy_patroni_cluster)
    discovery = discovery_for(config)
    resolved, closed = threading.Event(), threading.Event()

    class Late:
        def close(self) -> None:
            closed.set()

    def hang(_: Attempt) -> Late:
        resolved.wait(PATIENCE)
        return Late()

    with pytest.raises(NoPrimaryError, match="no answer within"):
        acquire(discovery, config, hang)
    resolved.set()
    # Late has no socket: what to do with it was decided before it came.
    assert closed.wait(PATIENCE)
    discovery.close()


async def _hang(_: Attempt) -> Any:
    await asyncio.sleep(PATIENCE)


def test_a_coroutine_that_never_connects(healthy_patroni_cluster: LocalCluster) -> None:
    config = short(healthy_patroni_cluster)
    discovery = discovery_for(config)
    with pytest.raises(NoPrimaryError, match="last tried n"):
        asyncio.run(acquire_async(discovery, config, _hang))
    discovery.close()


def test_a_frozen_primary(healthy_patroni_cluster: LocalCluster) -> None:
    cluster = healthy_patroni_cluster
    config = short(cluster)
    discovery = discovery_for(config)
    discovery.topology()
    frozen = cluster.freeze()
    try:
        with pytest.raises(NoPrimaryError, match=f"last tried {frozen} "):
            acquire(discovery, config, connector(cluster))
    finally:
        cluster.thaw(frozen)
        discovery.close()


def test_a_cold_start_with_apis_that_hang(healthy_patroni_cluster: LocalCluster) -> None:
    cluster = healthy_patroni_cluster
    names = [node.name for node in cluster.nodes]
    for name in names:
        cluster.freeze(name, patroni_only=True)
    # A timeout for requests of an hour: only the deadline ends this.
    config = short(cluster, timeout=3600)
    discovery = discovery_for(config)
    try:
        with pytest.raises(NoPrimaryError):
            acquire(discovery, config, connector(cluster))
    finally:
        for name in names:
            cluster.thaw(name)
        discovery.close()


WAIT = """
import sys, psycopg
from patroni_db import PatroniConfig, discovery_for
from patroni_db.acquisition import acquire
from patroni_db.libpq import attempt_params

config = PatroniConfig(urls=sys.argv[1])
discovery = discovery_for(config)
print("waiting", flush=True)
acquire(discovery, config, lambda attempt: psycopg.connect(**attempt_params({"user": "app"}, attempt)))
"""


def test_ctrl_c_ends_the_waiting(healthy_patroni_cluster: LocalCluster) -> None:
    cluster = healthy_patroni_cluster
    frozen = cluster.freeze()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        with subprocess.Popen(
            [sys.executable, "-c", WAIT, ",".join(cluster.urls)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "waiting\n"
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=PATIENCE)
    finally:
        cluster.thaw(frozen)
    assert process.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
