from __future__ import annotations

import importlib.util
import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

if TYPE_CHECKING:
    from patroni_db.cluster import LocalCluster

pytestmark = pytest.mark.django_db(databases=["default", "replica"])


def status(*words: str) -> str:
    out = io.StringIO()
    call_command("patroni", "status", *words, stdout=out, no_color=True)
    return out.getvalue()


@pytest.mark.parametrize("rich", [True, False])
def test_a_table_of_every_cluster(patroni_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, rich: bool) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: find(name) if rich or name != "rich" else None)
    told = status()
    assert told.count("default, replica") == 1
    for node in patroni_cluster.nodes:
        assert node.name in told
        assert f"{node.host}:{node.port}" in told


def test_json_by_alias(patroni_cluster: LocalCluster) -> None:
    told = json.loads(status("--json"))
    assert set(told) == {"default", "replica"}
    assert told["default"]["primary"] == patroni_cluster.leader
    assert {m["name"] for m in told["replica"]["members"]} == {node.name for node in patroni_cluster.nodes}
    assert set(json.loads(status("--json", "--database", "replica"))) == {"replica"}


def test_call_command_takes_the_name_of_one_alias() -> None:
    out = io.StringIO()
    call_command("patroni", "status", "--json", database="replica", stdout=out)
    assert set(json.loads(out.getvalue())) == {"replica"}
    call_command("patroni", "status", "--json", database=["replica"], stdout=out)
    with pytest.raises(CommandError, match="'nowhere'"):
        call_command("patroni", "status", database="nowhere")


def test_an_alias_that_is_not_there() -> None:
    with pytest.raises(CommandError, match="nowhere"):
        status("--database", "nowhere")


def test_no_answer_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        connections.settings["replica"]["TEST"], "PATRONI_OPTIONS", {"patroni_urls": "http://127.0.0.1:9"}
    )
    errors = io.StringIO()
    with pytest.raises(SystemExit, match="1"):
        call_command("patroni", "status", "--database", "replica", stdout=io.StringIO(), stderr=errors)
    assert "http://127.0.0.1:9" in errors.getvalue()


def test_a_wrong_setting_is_named_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings["replica"]["TEST"], "PATRONI_OPTIONS", {"patroni_url": "x"})
    with pytest.raises(CommandError, match=r"\['replica'\].*did you mean patroni_urls\?"):
        status()


def test_an_action_is_needed() -> None:
    command: Any = "patroni"
    with pytest.raises(CommandError):
        call_command(command)
