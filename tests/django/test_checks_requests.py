"""System checks of what the settings say of requests."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections

from django_backend.checks import check_databases, check_requests

MIDDLEWARE = "django_backend.middleware.FailoverMiddleware"
OTHER = "django.middleware.common.CommonMiddleware"


def ids(*, atomic: bool = True) -> list[str | None]:
    return [message.id for message in check_requests(atomic)]


def test_nothing_is_said_of_settings_that_fit(settings: Any) -> None:
    assert ids(atomic=False) == []
    settings.MIDDLEWARE = [MIDDLEWARE, OTHER]
    settings.PATRONI_EXACTLY_ONCE = True
    settings.PATRONI_REQUEST_DEADLINE = 10
    assert ids() == []


def test_the_middleware_is_the_first(settings: Any) -> None:
    settings.MIDDLEWARE = [OTHER, MIDDLEWARE]
    assert ids() == ["patroni.W006"]


@pytest.mark.parametrize("deadline", ["10", 0, -1, True])
def test_a_deadline_that_is_none(settings: Any, deadline: object) -> None:
    settings.PATRONI_REQUEST_DEADLINE = deadline
    assert ids() == ["patroni.E005"]


def test_exactly_once_without_what_it_is_about(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.PATRONI_EXACTLY_ONCE = True
    assert ids() == ["patroni.W007"]
    settings.MIDDLEWARE = [MIDDLEWARE]
    assert ids(atomic=False) == ["patroni.W007"]
    assert "patroni.W007" in {message.id for message in check_databases()}
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    assert "patroni.W007" not in {message.id for message in check_databases()}
