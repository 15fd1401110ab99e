"""``manage.py patroni`` on a cluster whose names and states somebody wrote who means harm. Without a server."""

from __future__ import annotations

import importlib.util
import io
import json
from typing import TYPE_CHECKING

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from django_backend.management.commands import patroni
from patroni_db.cli.view import View
from patroni_db.client import NodeStatus
from patroni_db.errors import DiscoveryError
from patroni_db.network import AddressBook
from patroni_db.topology import parse_cluster

if TYPE_CHECKING:
    from patroni_db.config import PatroniConfig

HOSTILE = "n1\r\nforged\x1b]0;pwn\x07\x1b[2J\x9b31m\u202e\u2028\x00\ud800"


def seen(config: PatroniConfig) -> View:
    row = {"name": HOSTILE, "role": "leader", "state": HOSTILE, "host": HOSTILE, "port": 5432, "timeline": 1}
    other = {
        **row,
        "name": f"2{HOSTILE}",
        "role": HOSTILE,
        "tags": {HOSTILE: float("nan")},
        "api_url": f"http://{HOSTILE}",
    }
    topology = parse_cluster(json.dumps({"scope": HOSTILE, "members": [row, other]}))
    answers: dict[str, NodeStatus | DiscoveryError]
    answers = {HOSTILE: NodeStatus(HOSTILE, HOSTILE, 1, "7"), f"2{HOSTILE}": DiscoveryError("http://pg2", HOSTILE)}
    return View(topology, config.urls[0], AddressBook.of(config), answers, (DiscoveryError("http://pg3", HOSTILE),))


def told(monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr(patroni, "look", seen)
    out = io.StringIO()
    with pytest.raises(SystemExit):
        call_command("patroni", "status", *words, stdout=out, no_color=True)
    return out.getvalue()


@pytest.mark.parametrize("rich", [True, False])
def test_a_terminal_obeys_no_member(monkeypatch: pytest.MonkeyPatch, rich: bool) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: find(name) if rich or name != "rich" else None)
    text = told(monkeypatch)
    assert r"n1\r\nforged" in text
    assert all(line.isprintable() for line in text.split("\n"))


def test_json_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads(told(monkeypatch, "--json"), parse_constant=pytest.fail)
    assert document["default"]["leader"] == HOSTILE.replace("\ud800", "\ufffd")
    assert document["default"]["members"][0]["problem"] == "its address is refused"


def test_pruning_tells_plainly_why_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> int:
        error = OperationalError(f"FATAL: {HOSTILE}\n")
        error.add_note("Run 'manage.py migrate'.")
        raise error

    monkeypatch.setattr(patroni, "run_atomic", fail)
    with pytest.raises(CommandError, match=r"FATAL.*migrate") as caught:
        call_command("patroni", "prune-markers")
    assert str(caught.value).isprintable()


def test_a_failure_is_told_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: PatroniConfig) -> View:
        raise DiscoveryError("http://pg1:8008", HOSTILE)

    monkeypatch.setattr(patroni, "look", fail)
    errors = io.StringIO()
    with pytest.raises(SystemExit):
        call_command("patroni", "status", stdout=io.StringIO(), stderr=errors, no_color=True)
    assert "pg1" in errors.getvalue()
    assert all(line.isprintable() for line in errors.getvalue().split("\n"))
