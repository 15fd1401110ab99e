from __future__ import annotations

from typing import Any

import pytest

from django_backend.config import databases
from django_backend.options import go_to_primary
from django_backend.pairing import Alias, cluster_of, pair

A, B, C, D = (f"http://pg{n}:8008" for n in range(4))


def aliases(entries: dict[str, dict[str, Any]]) -> list[Alias]:
    return [Alias.of(name, entry) for name, entry in entries.items()]


def reads(name: str, urls: list[str], **entry: Any) -> dict[str, Any]:
    return {name: {"NAME": "app", "OPTIONS": {"patroni_urls": urls, "patroni_target": "replica"}, **entry}}


def writes(name: str, urls: list[str], **entry: Any) -> dict[str, Any]:
    return {name: {"NAME": "app", "OPTIONS": {"patroni_urls": urls}, **entry}}


def test_databases_belong_together() -> None:
    made = databases(NAME="a", OPTIONS={"patroni_urls": [A]}) | databases(
        alias="b", NAME="a", OPTIONS={"patroni_urls": [B]}
    )
    assert pair(aliases(made)) == {"replica": "default", "b_replica": "b"}


def test_by_cluster_and_database_without_a_mirror() -> None:
    made = writes("w", [A, B]) | writes("other", [A, B], NAME="x") | reads("r", [B]) | reads("rx", [A], NAME="x")
    assert pair(aliases(made)) == {"r": "w", "rx": "other"}


def test_seeds_of_one_cluster_need_not_be_the_same() -> None:
    made = aliases(writes("w", [A, B]) | reads("between", [B, C]) | reads("r", [C]) | reads("elsewhere", [D]))
    assert [cluster_of(alias, made) for alias in made] == [{A, B, C}, {A, B, C}, {A, B, C}, {D}]
    assert pair(made) == {"between": "w", "r": "w"}


def test_a_url_is_the_same_however_it_is_written() -> None:
    assert pair(aliases(writes("w", [A]) | reads("r", [A + "/patroni/"]))) == {"r": "w"}


def test_the_mirror_decides_between_primaries() -> None:
    made = writes("default", [A]) | writes("second", [A]) | reads("r", [A], TEST={"MIRROR": "second"})
    assert pair(aliases(made)) == {"r": "second"}


def test_a_mirror_on_another_cluster_is_no_partner() -> None:
    made = writes("default", [A]) | reads("r", [B], TEST={"MIRROR": "default"})
    assert pair(aliases(made)) == {}


@pytest.mark.parametrize("name", ["test_app", "special"])
def test_partners_stay_partners_while_test_databases_are_made(name: str) -> None:
    test = {} if name == "test_app" else {"NAME": name}
    made = writes("default", [A], NAME=name, TEST=test) | reads("r", [A], NAME="app", TEST=test)
    assert pair(aliases(made)) == {"r": "default"}


def test_partners_stay_partners_in_tests() -> None:
    made = databases(NAME="app", OPTIONS={"patroni_urls": [A]})
    go_to_primary(made["replica"], made["default"])
    assert pair(aliases(made)) == {"replica": "default"}
