"""What ``databases_on`` makes of a project's settings, and what it leaves of them."""

from __future__ import annotations

import contextlib
import copy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections

from django_backend.config import databases
from django_backend.testing import databases_on

if TYPE_CHECKING:
    from collections.abc import Iterator

CLUSTER: Any = SimpleNamespace(urls=("http://127.0.0.1:9",), user="app", password="made for it", dbname="app")
PRODUCTION = databases(
    NAME="shop",
    USER="shop",
    PASSWORD="of production",
    CONN_MAX_AGE=60,
    OPTIONS={
        "patroni_urls": ["https://pg1:8008"],
        "patroni_scope": "main",
        "patroni_user": "monitor",
        "patroni_password": "whisper",
        "patroni_allowed_hosts": ["*.example.com"],
        "patroni_etcd": ["https://etcd1"],
        "patroni_etcd_user": "reader",
        "patroni_etcd_password": "whisper",
        "patroni_tags": "zone=a",
        "patroni_max_lag": "16MB",
        "patroni_failover_timeout": 5,
        "sslmode": "verify-full",
        "application_name": "shop",
    },
)


@pytest.fixture
def settings_of_production(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The project's two aliases, and one that is not ours, with other settings for a while."""
    entries = {
        alias: {**connections.settings[alias], **copy.deepcopy(PRODUCTION[alias])} for alias in ("default", "replica")
    }
    elsewhere = {**connections.settings["default"], "ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    for alias, entry in {**entries, "elsewhere": elsewhere}.items():
        monkeypatch.setitem(connections.settings, alias, entry)
    yield connections.settings
    for alias in ("default", "replica", "elsewhere"):
        with contextlib.suppress(AttributeError):  # none was made
            del connections[alias]


def test_aliases_lead_to_the_cluster_and_keep_how_they_use_one(settings_of_production: dict[str, Any]) -> None:
    before = copy.deepcopy(settings_of_production)
    with databases_on(CLUSTER):
        default, replica = settings_of_production["default"], settings_of_production["replica"]
        assert (default["USER"], default["PASSWORD"], default["NAME"]) == ("app", "made for it", "shop")
        common = {"patroni_urls": ["http://127.0.0.1:9"], "patroni_failover_timeout": 5, "application_name": "shop"}
        assert default["OPTIONS"] == {**common, "patroni_target": "primary"}
        assert replica["OPTIONS"] == {**common, "patroni_target": "replica_preferred", "patroni_max_lag": "16MB"}
        assert (default["CONN_MAX_AGE"], replica["TEST"]["MIRROR"]) == (60, "default")
        assert settings_of_production["elsewhere"] == before["elsewhere"]
        assert connections["default"].settings_dict is default
    assert settings_of_production == before
    assert connections["default"].settings_dict["USER"] == "shop"


@pytest.mark.usefixtures("settings_of_production")
def test_nobody_looks_at_a_cluster_that_is_about_to_be_stopped() -> None:
    with databases_on(CLUSTER):
        kept: Any = connections["default"]  # as Django's test runner keeps it
        with kept._connecting():
            kept.get_connection_params()
        kept._discovery.ensure_watching()
        assert kept._discovery._watcher.is_running
    assert not kept._discovery._watcher.is_running


def test_only_the_aliases_that_are_named_are_changed(settings_of_production: dict[str, Any]) -> None:
    before = copy.deepcopy(settings_of_production)
    with databases_on(CLUSTER, ["replica"]):
        assert settings_of_production["default"] == before["default"]
        assert settings_of_production["replica"]["USER"] == "app"
    assert settings_of_production == before
