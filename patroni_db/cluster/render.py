"""What the servers are told: configuration files, command lines and environments. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from patroni_db.cluster.nodes import Node

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from patroni_db.cluster.addresses import Layout
    from patroni_db.cluster.binaries import EtcdBinary, PostgresBinaries
    from patroni_db.cluster.settings import ClusterSettings

__all__ = ["NAMESPACE", "Credentials", "dynamic_config", "environment", "etcd_command", "nodes_of", "patroni_config"]

NAMESPACE = "/service/"

# PostgreSQL for tests: small, quick, and with room for the connections of a test suite.
_PARAMETERS: Mapping[str, Any] = {
    "max_connections": 200,
    "shared_buffers": "32MB",
    "fsync": "off",
    "wal_level": "replica",
    "max_wal_senders": 16,
    "max_replication_slots": 16,
    "wal_keep_size": "128MB",
    "max_wal_size": "512MB",
    "hot_standby": "on",
    "hot_standby_feedback": "on",
    "wal_log_hints": "on",
    "wal_receiver_status_interval": 1,
    "wal_retrieve_retry_interval": "200ms",
    "password_encryption": "scram-sha-256",
    # Segments as files of the data directory: nothing is left in /dev/shm when a server is killed.
    "dynamic_shared_memory_type": "mmap",
    "max_parallel_workers_per_gather": 0,
    "log_line_prefix": "%m [%p] %q%u@%d ",
}

_BUILTIN_LOCALE_VERSION = 17


@dataclass(frozen=True, slots=True)
class Credentials:
    """The passwords of a cluster's roles; made anew for each cluster.

    :param superuser: password of ``postgres``
    :param replication: password of ``replicator``
    :param rewind: password of ``rewinder``
    :param app: password of the ordinary role ``app``
    """

    superuser: str
    replication: str
    rewind: str
    app: str

    def __repr__(self) -> str:
        return "Credentials(...)"


def nodes_of(layout: Layout, directory: Path, run: Path) -> tuple[Node, ...]:
    """Return the nodes at the addresses of `layout`, their files under `directory`, their sockets under `run`."""
    return tuple(
        Node(f"n{index}", host, port, api_port, directory / f"n{index}", run / f"n{index}")
        for index, ((host, port), (_, api_port)) in enumerate(zip(layout.postgres, layout.api, strict=True), start=1)
    )


def dynamic_config(settings: ClusterSettings) -> dict[str, Any]:
    """Return the cluster-wide configuration, as ``GET /config`` of a fresh cluster gives it."""
    return {
        "ttl": settings.ttl,
        "loop_wait": settings.loop_wait,
        "retry_timeout": settings.retry_timeout,
        "primary_start_timeout": settings.primary_start_timeout,
        "synchronous_mode": settings.synchronous,
        "failsafe_mode": settings.failsafe,
        "postgresql": {
            "use_pg_rewind": True,
            "use_slots": True,
            "parameters": {**_PARAMETERS, **settings.parameters},
        },
    }


def _initdb_options(version: int) -> list[Any]:
    options: list[Any] = [{"encoding": "UTF8"}, {"locale": "C"}, "no-sync"]
    if version >= _BUILTIN_LOCALE_VERSION:
        # Case mapping of all of Unicode without ICU, which not every build has.
        options += [{"locale-provider": "builtin"}, {"builtin-locale": "C.UTF-8"}]
    return options


def patroni_config(
    node: Node,
    settings: ClusterSettings,
    layout: Layout,
    scope: str,
    postgres: PostgresBinaries,
    credentials: Credentials,
) -> dict[str, Any]:
    """Return Patroni's configuration of one node."""
    etcd_host, etcd_port = layout.etcd
    return {
        "scope": scope,
        "namespace": NAMESPACE,
        "name": node.name,
        "log": {"level": "INFO"},
        "restapi": {
            "listen": f"{node.host}:{node.api_port}",
            "connect_address": f"{node.host}:{node.api_port}",
        },
        "etcd3": {"hosts": [f"{etcd_host}:{etcd_port}"]},
        "bootstrap": {"dcs": dynamic_config(settings), "initdb": _initdb_options(postgres.version)},
        "postgresql": {
            "listen": f"{node.host}:{node.port}",
            "connect_address": f"{node.host}:{node.port}",
            "data_dir": str(node.data_dir),
            "bin_dir": str(postgres.directory),
            "pgpass": str(node.directory / "pgpass"),
            "authentication": {
                "superuser": {"username": "postgres", "password": credentials.superuser},
                "replication": {"username": "replicator", "password": credentials.replication},
                "rewind": {"username": "rewinder", "password": credentials.rewind},
            },
            "pg_hba": [
                "local all all scram-sha-256",
                "host all all 127.0.0.0/8 scram-sha-256",
                "host replication replicator 127.0.0.0/8 scram-sha-256",
            ],
            "basebackup": [{"checkpoint": "fast"}, "no-sync", "no-manifest", "no-verify-checksums"],
            "parameters": {
                "unix_socket_directories": str(node.socket_dir),
                "logging_collector": "on",
                "log_directory": str(node.postgres_log.parent),
                "log_filename": node.postgres_log.name,
                "log_rotation_age": 0,
                "log_rotation_size": 0,
            },
        },
        "tags": dict(settings.tags.get(node.name, {})),
    }


def etcd_command(etcd: EtcdBinary, layout: Layout, directory: Path) -> list[str]:
    """Return etcd's command line."""
    client = "http://{}:{}".format(*layout.etcd)
    peer = "http://{}:{}".format(*layout.etcd_peer)
    command = [
        str(etcd.path),
        "--name=etcd",
        f"--data-dir={directory / 'data'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=etcd={peer}",
        "--logger=zap",
        "--log-level=warn",
    ]
    if etcd.version >= (3, 5):
        command.append("--unsafe-no-fsync")
    return command


def environment(directory: Path, path: Sequence[Path], inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a server.

    Not the owner's: its ``PATRONI_*``, ``PG*`` and ``ETCD_*`` variables would override the configuration.

    :param directory: home and temporary folder of the server
    :param path: folders to find programs in
    :param inherited: the owner's environment, for the few variables that programs need to run at all
    """
    kept = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ", "SSL_CERT_FILE")
    return {
        **{name: inherited[name] for name in kept if name in inherited},
        "PATH": ":".join([*map(str, path), "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]),
        "HOME": str(directory),
        "TMPDIR": str(directory),
        "LC_ALL": "C",
    }
