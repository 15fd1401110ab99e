"""What the shop does in Celery's workers: each task once, however often it is delivered, retried or interrupted."""

from __future__ import annotations

import functools
import uuid
from typing import TYPE_CHECKING, Any

from celery import shared_task
from django.db import OperationalError

from django_backend.causal import consistency
from django_backend.transaction import run_atomic
from example_project.orders.services import place_order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["once", "place"]


def once(function: Callable[..., Any]) -> Any:
    """Make a task of `function`, which runs in a transaction of its own and takes effect once.

    - ``run_atomic`` runs it again after a failover, and waits for the next primary; `key` decides what became of a
      COMMIT that was not answered, and lets a second delivery of the same message do nothing.
    - ``acks_late`` and ``reject_on_worker_lost`` have the message delivered again when its worker dies.
    - Retries come to the rescue where the database is away for longer than ``patroni_failover_timeout``. A retry keeps
      the task's identifier, and so its key.
    """

    @shared_task(  # type: ignore[untyped-decorator]  # Celery has no types
        bind=True,
        acks_late=True,
        reject_on_worker_lost=True,
        autoretry_for=(OperationalError,),
        max_retries=20,
        retry_backoff=2,
        retry_backoff_max=60,
    )
    @consistency("causal")
    @functools.wraps(function)
    def run(task: Any, *args: Any, **kwargs: Any) -> Any:
        return run_atomic(functools.partial(function, *args, **kwargs), key=f"celery:{task.request.id}")

    return run


@once
def place(customer: str, quantities: Sequence[tuple[int, int]], reference: str) -> int:
    """Place an order, and return its primary key; None when it is delivered again.

    :param customer: who orders
    :param quantities: primary keys of products and pieces: JSON has no numbers as keys
    :param reference: what the customer calls the order, a UUID
    """
    return place_order(customer, dict(quantities), uuid.UUID(reference)).pk
