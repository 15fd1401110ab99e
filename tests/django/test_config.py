from __future__ import annotations

import subprocess
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_backend.config import databases

URLS = ["http://pg1:8008", "http://pg2:8008"]


def test_one_alias_writes_and_one_reads() -> None:
    made = databases(NAME="app", USER="me", CONN_MAX_AGE=60, OPTIONS={"patroni_urls": URLS, "sslmode": "require"})
    assert made == {
        "default": {
            "ENGINE": "django_backend",
            "NAME": "app",
            "USER": "me",
            "CONN_MAX_AGE": 60,
            "OPTIONS": {"patroni_urls": URLS, "sslmode": "require", "patroni_target": "primary"},
        },
        "replica": {
            "ENGINE": "django_backend",
            "NAME": "app",
            "USER": "me",
            "CONN_MAX_AGE": 60,
            "OPTIONS": {"patroni_urls": URLS, "sslmode": "require", "patroni_target": "replica_preferred"},
            "TEST": {"MIRROR": "default"},
        },
    }


def test_restrictions_of_replicas_are_not_the_primarys() -> None:
    options = {"patroni_urls": URLS, "patroni_max_lag": "16MB", "patroni_tags": "zone=a", "patroni_target": "replica"}
    made = databases(NAME="app", OPTIONS=options)
    assert made["default"]["OPTIONS"] == {"patroni_urls": URLS, "patroni_target": "primary"}
    assert made["replica"]["OPTIONS"] == options


def test_several_clusters_side_by_side() -> None:
    made = databases(NAME="app") | databases(alias="billing", NAME="billing") | databases(alias="x", replica="y")
    assert list(made) == ["default", "replica", "billing", "billing_replica", "x", "y"]
    assert made["billing_replica"]["TEST"]["MIRROR"] == "billing"


def test_entries_share_no_mutable_value() -> None:
    options = {"patroni_urls": list(URLS), "pool": {"min_size": 1}}
    test = {"NAME": "t"}
    made = databases(NAME="app", OPTIONS=options, TEST=test)
    made["default"]["OPTIONS"]["pool"]["min_size"] = 2
    made["default"]["OPTIONS"]["patroni_urls"].clear()
    made["default"]["TEST"]["NAME"] = "other"
    assert made["replica"]["OPTIONS"]["pool"] == options["pool"] == {"min_size": 1}
    assert made["replica"]["OPTIONS"]["patroni_urls"] == URLS
    assert made["replica"]["TEST"] == {"NAME": "t", "MIRROR": "default"}
    assert test == {"NAME": "t"}


def test_transactions_around_views_are_for_the_alias_that_writes() -> None:
    made = databases(NAME="app", ATOMIC_REQUESTS=True)
    assert made["default"]["ATOMIC_REQUESTS"] is True
    assert "ATOMIC_REQUESTS" not in made["replica"]


def test_the_reading_alias_cannot_be_sent_to_the_primary() -> None:
    with pytest.raises(ImproperlyConfigured, match="patroni_target"):
        databases(NAME="app", OPTIONS={"patroni_target": "primary"})


def test_one_alias_cannot_be_both() -> None:
    with pytest.raises(ImproperlyConfigured, match="'x'"):
        databases(alias="x", replica="x")


def test_a_settings_module_stays_light() -> None:
    heavy = ("psycopg", "requests", "django.db")
    code = f"import sys, django_backend.config; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_setting_beside_options_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="patroni_target, patroni_urls must be in OPTIONS"):
        databases(NAME="app", patroni_urls=URLS, patroni_target="replica")
