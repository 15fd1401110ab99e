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
    from patroni_db.cluster.certificates import CertificateFiles
    from patroni_db.cluster.settings import ClusterSettings

__all__ = [
    "API_USER",
    "NAMESPACE",
    "Credentials",
    "dynamic_config",
    "environment",
    "etcd_command",
    "nodes_of",
    "patroni_config",
]

NAMESPACE = "/service/"
#: Who may change things through Patroni's REST API.
API_USER = "patroni"

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
    """The passwords of a cluster; made anew for each cluster.

    :param superuser: password of ``postgres``
    :param replication: password of ``replicator``
    :param rewind: password of ``rewinder``
    :param app: password of the ordinary role ``app``
    :param api: password of the REST API's user ``patroni``
    """

    superuser: str
    replication: str
    rewind: str
    app: str
    api: str

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
    # Without a method of its own initdb trusts everybody on this machine until Patroni has written pg_hba.conf.
    methods = [{"auth-local": "scram-sha-256"}, {"auth-host": "scram-sha-256"}]
    options: list[Any] = [{"encoding": "UTF8"}, {"locale": "C"}, *methods, "no-sync"]
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
    certificates: CertificateFiles,
    *,
    postgres_program: str | None = None,
) -> dict[str, Any]:
    """Return Patroni's configuration of one node.

    :param postgres_program: what to start as ``postgres`` instead of the one among `postgres`
    """
    etcd_host, etcd_port = layout.etcd
    return {
        "scope": scope,
        "namespace": NAMESPACE,
        "name": node.name,
        "log": {"level": "INFO"},
        "restapi": {
            "listen": f"{node.host}:{node.api_port}",
            "connect_address": f"{node.host}:{node.api_port}",
            # Of what changes something; everybody on this machine may read.
            "authentication": {"username": API_USER, "password": credentials.api},
        },
        "etcd3": {
            "hosts": [f"{etcd_host}:{etcd_port}"],
            "protocol": "https",
            "cacert": str(certificates.authority),
            "cert": str(certificates.client),
        },
        "bootstrap": {"dcs": dynamic_config(settings), "initdb": _initdb_options(postgres.version)},
        "postgresql": {
            "listen": f"{node.host}:{node.port}",
            "connect_address": f"{node.host}:{node.port}",
            "data_dir": str(node.data_dir),
            "bin_dir": str(postgres.directory),
            **({"bin_name": {"postgres": postgres_program}} if postgres_program else {}),
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
                "unix_socket_permissions": "0700",
                "logging_collector": "on",
                "log_directory": str(node.postgres_log.parent),
                "log_filename": node.postgres_log.name,
                "log_rotation_age": 0,
                "log_rotation_size": 0,
            },
        },
        "tags": dict(settings.tags.get(node.name, {})),
    }


def etcd_command(etcd: EtcdBinary, layout: Layout, directory: Path, certificates: CertificateFiles) -> list[str]:
    """Return etcd's command line."""
    client = "https://{}:{}".format(*layout.etcd)
    peer = "https://{}:{}".format(*layout.etcd_peer)
    command = [
        str(etcd.path),
        "--name=etcd",
        f"--data-dir={directory / 'data'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=etcd={peer}",
        *(
            f"--{side}{option}"
            for side in ("", "peer-")
            for option in (
                f"cert-file={certificates.server}",
                f"key-file={certificates.server}",
                f"trusted-ca-file={certificates.authority}",
                "client-cert-auth",
            )
        ),
        # By default every web page may read etcd's answers, under any name that leads to its address.
        f"--cors={client}",
        f"--host-whitelist={layout.etcd[0]}",
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
