"""What a node of a local cluster is, and how it is."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Node", "NodeStatus", "ProcessState"]


@dataclass(frozen=True, slots=True)
class Node:
    """One Patroni node: where it listens and where its files are. Nothing here changes while the cluster lives.

    :param name: the member's name in Patroni, ``n1`` and so on
    :param host: the address of both PostgreSQL and the REST API
    :param port: PostgreSQL's port
    :param api_port: the REST API's port
    :param directory: the folder of the node's files
    :param socket_dir: the folder of PostgreSQL's unix socket; a short path
    """

    name: str
    host: str
    port: int
    api_port: int
    directory: Path
    socket_dir: Path

    @property
    def api_url(self) -> str:
        """The base URL of the node's REST API."""
        return f"http://{self.host}:{self.api_port}"

    @property
    def data_dir(self) -> Path:
        """PostgreSQL's data directory."""
        return self.directory / "data"

    @property
    def config_file(self) -> Path:
        """Patroni's configuration (JSON, which is YAML too)."""
        return self.directory / "patroni.json"

    @property
    def patroni_log(self) -> Path:
        """What Patroni wrote, and what PostgreSQL wrote before its own log was open."""
        return self.directory / "patroni.log"

    @property
    def postgres_log(self) -> Path:
        """What PostgreSQL wrote."""
        return self.directory / "log" / "postgresql.log"


class ProcessState(enum.StrEnum):
    """How a server process is, as the operating system sees it."""

    RUNNING = "running"
    FROZEN = "frozen"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """How the processes of one node are. It says nothing about roles: ask Patroni for those.

    :param name: the node's name
    :param patroni: the Patroni process
    :param postgres: the postmaster
    """

    name: str
    patroni: ProcessState
    postgres: ProcessState
