"""A cluster's REST APIs as recorded or written down, in place of HTTP, and a discovery that asks them.

Only the answers are replayed: the discovery that digests them is the real one.
"""

from __future__ import annotations

import ast
import json
import random
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from patroni_db.client import NodeStatus
from patroni_db.config import PatroniConfig
from patroni_db.discovery import Discovery
from patroni_db.errors import DiscoveryError
from patroni_db.selection import Target, candidates
from patroni_db.topology import Topology, parse_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HERE = Path(__file__).parent
SEEDS = tuple(f"http://n{number}:8008" for number in (1, 2, 3))
LINE = re.compile(
    r"\s*(?P<time>[\d.]+) (?:(?P<node>n\d) (?P<what>\S+)|(?P<mark>#####)|ETCD-WATCH leader) +(?P<rest>.*)"
)
DURATION = re.compile(r" \(\d+ms\)$")


def wait_for_flights(hanging: int = 0) -> None:
    """Wait until no request is under way, but for so many: on a busy machine a look ends before its answers come."""
    deadline = time.monotonic() + 10
    while sum(thread.name == "patroni-db look" for thread in threading.enumerate()) > hanging:
        assert time.monotonic() < deadline, "a request never ended"
        time.sleep(0.001)


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Answers:
    """What each URL answers at the moment; also the client that asks."""

    def __init__(self) -> None:
        self.clusters: dict[str, bytes | str] = {}
        self.nodes: dict[str, NodeStatus] = {}
        self.asked: list[str] = []

    def cluster(self, base_url: str) -> Topology:
        self.asked.append(base_url)
        body = self.clusters.get(base_url)
        if not isinstance(body, bytes):
            raise DiscoveryError(base_url, body or "connection refused", transient=True)
        return parse_cluster(body)

    def node(self, base_url: str) -> NodeStatus:
        try:
            return self.nodes[base_url]
        except KeyError:
            raise DiscoveryError(base_url, "connection refused", transient=True) from None

    def close(self) -> None:
        """Nothing is open."""

    def set(self, answers: Mapping[str, Any]) -> None:
        """Let each node (``n1``) answer with these members, or fail with this text."""
        for name, answer in answers.items():
            url = f"http://{name}:8008"
            self.clusters[url] = answer if isinstance(answer, str) else json.dumps(answer).encode()


def discovery_of(answers: Answers, clock: Clock, **settings: Any) -> Discovery:
    config = PatroniConfig(**{"urls": SEEDS, **settings})
    return Discovery(config, clock=clock, rng=random.Random(1), client=lambda _: answers, asks=lambda _: False)  # type: ignore[arg-type, return-value]


class Route(NamedTuple):
    """Where work goes."""

    primary: str | None
    replicas: frozenset[str]


def route_of(discovery: Discovery) -> Route:
    snapshot = discovery.snapshot
    if snapshot is None:
        return Route(None, frozenset())
    primary = snapshot.primary
    replicas = candidates(snapshot.topology, Target.REPLICA, discovery.rng)
    return Route(primary[0].name if primary else None, frozenset(member.name for member in replicas))


def members(text: str, **top: Any) -> dict[str, Any]:
    """Read the recordings' short form, ``n1:leader/running/tl1 n2:replica/streaming/tlNone``."""
    rows = []
    for word in text.split():
        name, _, rest = word.partition(":")
        role, state, timeline = rest.split("/")
        row: dict[str, Any] = {"name": name, "role": role, "state": state, "host": name, "port": 5432}
        row["api_url"] = f"http://{name}:8008/patroni"
        if timeline != "tlNone":
            row["timeline"] = int(timeline.removeprefix("tl"))
        rows.append(row)
    return {"members": rows, "scope": "lab", **top}


def replay(path: Path, answers: Answers, clock: Clock) -> Iterator[str | None]:
    """Let `answers` change as recorded; yield after each change, with the fault's text at a mark."""
    timelines: dict[str, int] = {}
    for line in path.read_text().splitlines():
        match = LINE.match(line)
        assert match, line
        clock.now = float(match["time"])
        rest = DURATION.sub("", match["rest"].strip())
        url = f"http://{match['node']}:8008"
        if match["mark"]:
            yield rest
        elif match["what"] == "/cluster":
            if rest.startswith("EXC"):
                answers.clusters[url] = rest
            else:
                _, text, top = ast.literal_eval(rest)
                payload = members(text, **top)
                timelines |= {row["name"]: row["timeline"] for row in payload["members"] if "timeline" in row}
                answers.clusters[url] = json.dumps(payload).encode()
            yield None
        elif match["what"] == "/primary":
            if rest.startswith("EXC"):
                answers.nodes.pop(url, None)
            else:
                _, role, state, _ = ast.literal_eval(rest)
                answers.nodes[url] = NodeStatus(role, state, timelines.get(match["node"]), "7000000000000000001")
