from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connections

from django_backend.checks import check_aliases, check_entry, check_guards
from django_backend.config import databases
from django_backend.pairing import Alias
from django_backend.router import PrimaryReplicaRouter
from tests.django.backends import entry

URL = "http://pg1:8008"


def ids(name: str = "default", **changes: Any) -> list[str | None]:
    return [message.id for message in check_entry(name, entry(**changes))]


def test_good_settings_need_no_word() -> None:
    assert ids() == []
    assert run_checks(tags=["patroni"]) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"patroni_ulrs": "x"}, "patroni_ulrs"),
        ({"patroni_target": "master"}, "patroni_target"),
        ({"patroni_max_lag": "16MB"}, "patroni_max_lag"),
        ({"patroni_urls": ["pg1:8008"]}, "patroni_urls"),
        ({"patroni_timeout": -1}, "patroni_timeout"),
        ({"patroni_password": "hush"}, "patroni_user"),
        ({"patroni_urls": "http:/app:hush@pg1:8008"}, "patroni_urls"),
        ({"patroni_fallback_hosts": "app:hush@pg1"}, "patroni_fallback_hosts"),
        ({"patroni_url": "http://app:hush@pg1"}, "did you mean patroni_urls?"),
        ({"PATRONI_URLS": "http://app:hush@pg1"}, "did you mean patroni_urls?"),
    ],
)
def test_a_wrong_setting_is_named(options: dict[str, Any], told: str) -> None:
    (message,) = check_entry("default", entry(OPTIONS=options))
    assert message.id == "patroni.E001"
    assert "DATABASES['default']['OPTIONS']" in message.msg
    assert told in message.msg
    assert "hush" not in message.msg


def test_urls_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATRONI_API_URL", raising=False)
    assert ids(OPTIONS={"patroni_urls": []}) == ["patroni.E002"]
    monkeypatch.setenv("PATRONI_API_URL", URL)
    assert ids(OPTIONS={"patroni_urls": []}) == []


@pytest.mark.parametrize("option", ["host", "hostaddr", "port", "target_session_attrs", "load_balance_hosts"])
def test_the_driver_must_not_choose_the_server(option: str) -> None:
    assert ids(OPTIONS={option: "x"}) == ["patroni.E003"]


def test_pool_and_persistent_connections_exclude_each_other() -> None:
    assert ids(OPTIONS={"pool": True}, CONN_MAX_AGE=60) == ["patroni.E004"]
    assert ids(OPTIONS={"pool": True}) == []


def test_what_is_ignored_or_redundant_is_said() -> None:
    assert ids(HOST="pg1", PORT="5432") == ["patroni.W001", "patroni.W001"]
    assert ids(CONN_HEALTH_CHECKS=True) == ["patroni.W003"]
    assert ids(ATOMIC_REQUESTS=True) == []
    assert ids(ATOMIC_REQUESTS=True, OPTIONS={"patroni_target": "replica"}) == ["patroni.W005"]


def test_aliases_are_checked_together() -> None:
    made = databases(NAME="app", OPTIONS={"patroni_urls": [URL]})
    good = [Alias.of(name, settings) for name, settings in made.items()]
    del made["replica"]["TEST"]["MIRROR"]
    alone = [Alias.of(name, settings) for name, settings in made.items()]

    def found(aliases: list[Alias], *routers: object) -> list[str | None]:
        return [message.id for message in check_aliases(aliases, routers)]

    class Mine(PrimaryReplicaRouter):
        pass

    assert found(good, Mine()) == []
    assert found(good) == ["patroni.W004"]
    assert found(alone, Mine()) == ["patroni.W002"]
    assert found(alone[:1]) == []


def test_check_and_runserver_show_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings["default"]["OPTIONS"], "patroni_nonsense", 1)
    with pytest.raises(SystemCheckError, match=r"patroni\.E001.*patroni_nonsense"):
        call_command("check")


# -- In production --------------------------------------------------------------------------------------------

GUARDED = {
    "patroni_urls": "https://pg1.db.example.com:8008",
    "patroni_allowed_hosts": "*.db.example.com",
    "sslmode": "verify-full",
}


@pytest.fixture
def _no_libpq_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGSSLMODE", raising=False)
    monkeypatch.delenv("PGCHANNELBINDING", raising=False)


def unguarded(**options: Any) -> list[str | None]:
    return [message.id for message in check_guards("default", entry=entry(OPTIONS={**GUARDED, **options}))]


@pytest.mark.usefixtures("_no_libpq_environment")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"sslmode": "verify-ca"}, []),
        ({"sslmode": "require", "channel_binding": "require"}, []),
        ({"sslmode": "require"}, ["patroni.W020"]),
        ({"sslmode": None}, ["patroni.W020"]),
        ({"patroni_allowed_hosts": ""}, ["patroni.W021"]),
        ({"patroni_urls": "http://pg1:8008"}, ["patroni.W022"]),
        ({"patroni_etcd": "http://etcd1"}, ["patroni.W022"]),
        ({"patroni_urls": []}, []),
    ],
)
def test_what_is_unguarded_in_production_is_named(
    options: dict[str, Any], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PATRONI_API_URL", raising=False)
    assert unguarded(**options) == expected


@pytest.mark.usefixtures("_no_libpq_environment")
def test_libpqs_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert unguarded(sslmode=None) == []


def test_a_password_without_tls_is_told_and_not_shown() -> None:
    options = {**GUARDED, "patroni_urls": "http://pg1:8008", "patroni_user": "monitor", "patroni_password": "hush"}
    (message,) = check_guards("default", entry=entry(OPTIONS=options))
    assert "a password included" in message.msg
    assert "hush" not in message.msg


def test_only_a_deployment_is_told() -> None:
    assert {"patroni.W021", "patroni.W022"} <= {message.id for message in run_checks(include_deployment_checks=True)}
    assert not {"patroni.W020", "patroni.W021", "patroni.W022"} & {message.id for message in run_checks()}


def test_aliases_that_are_guarded_alike_are_told_of_once() -> None:
    (message,) = [found for found in run_checks(include_deployment_checks=True) if found.id == "patroni.W021"]
    assert message.msg.startswith("DATABASES['default']['OPTIONS'] and DATABASES['replica']['OPTIONS']: ")


def test_the_settings_that_the_page_on_security_shows_are_guarded() -> None:
    page = Path(__file__).parents[2] / "docs" / "security.md"
    if not page.is_file():
        pytest.skip("the documents are in a checkout alone")
    (block,) = re.findall(r"```python\nOPTIONS = (.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    options = {**ast.literal_eval(block), "patroni_ca": __file__}
    assert ids(OPTIONS=options) == []
    assert list(check_guards("default", entry=entry(OPTIONS=options))) == []
