"""Jobs that see what was written before they were put into a queue: Django's tasks, and Celery's."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction

from django_backend.carriers import load
from django_backend.causal import consistency, current_token, known_tokens
from django_backend.router import alias_for_reads
from tests.django.shop.models import Customer

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "replica"]),
    pytest.mark.usefixtures("routed"),
]

KEY = "of no use elsewhere"
seen: list[Any] = []


@consistency("causal")
def greet(pk: int) -> None:
    seen.append((Customer.objects.get(pk=pk).name, alias_for_reads(Customer), dict(known_tokens())))


def test_a_task_of_djangos(settings: Any) -> None:
    tasks = pytest.importorskip("django.tasks", reason="it comes with Django 6.0")
    settings.TASKS = {"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}}
    seen.clear()
    with transaction.atomic():
        ada = Customer.objects.create(name="Ada")
        task = tasks.task(greet)
        transaction.on_commit(lambda: seen.append(task.enqueue(ada.pk, causal_token=current_token())))
    (name, alias, tokens), result = seen
    assert (name, alias) == ("Ada", "replica")
    assert tokens == load(result.kwargs["causal_token"], [KEY])
    assert tokens
    assert result.status == "SUCCESSFUL"


def test_a_task_of_celerys() -> None:
    celery = pytest.importorskip("celery")
    app = celery.Celery(broker="memory://")
    app.conf.task_always_eager = True
    app.conf.task_store_eager_result = False
    task = app.task(greet)
    seen.clear()
    ada = Customer.objects.create(name="Ada")
    assert task.delay(ada.pk, causal_token=current_token()).successful()
    ((name, alias, tokens),) = seen
    assert (name, alias) == ("Ada", "replica")
    assert tokens


def test_a_job_of_any_queue() -> None:
    # What a broker carries: the arguments as JSON has them.
    ada = Customer.objects.create(name="Ada")
    message: dict[str, Any] = {"pk": ada.pk, "causal_token": current_token()}
    seen.clear()
    greet(**message)
    ((name, alias, tokens),) = seen
    assert (name, alias) == ("Ada", "replica")
    assert tokens == load(str(message["causal_token"]), [KEY])
    assert not known_tokens()
