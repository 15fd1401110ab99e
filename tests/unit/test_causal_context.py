"""Who sees which causal tokens."""

from __future__ import annotations

import asyncio
import threading

from patroni_db.causal import CausalToken
from patroni_db.causal_context import causal_context, causal_scope, observe, observed

EARLY, LATE = CausalToken("7", 1, 5), CausalToken("7", 1, 9)


def test_the_later_token_is_kept() -> None:
    with causal_context():
        observe(LATE)
        observe(EARLY)
        assert observed() == LATE


def test_clusters_are_told_apart() -> None:
    with causal_context({"orders": EARLY}):
        assert observed("orders") == EARLY
        assert observed() is None


def test_a_scope_ends() -> None:
    with causal_context():
        observe(EARLY)
        with causal_context():
            assert observed() is None
        assert observed() == EARLY
    assert observed() is None


def test_what_a_thread_or_task_of_a_scope_writes_is_seen_by_all_of_it() -> None:
    async def request() -> CausalToken | None:
        with causal_context():
            await asyncio.to_thread(observe, EARLY)
            await asyncio.create_task(_observe_later())
            return observed()

    async def _observe_later() -> None:
        observe(LATE)

    assert asyncio.run(request()) == LATE


def test_a_plain_thread_starts_without_tokens() -> None:
    seen: list[CausalToken | None] = []
    with causal_context({"default": EARLY}):
        thread = threading.Thread(target=lambda: seen.append(observed()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_a_lost_token_is_forgotten_unless_a_newer_one_came() -> None:
    with causal_context({"default": EARLY}) as scope:
        assert causal_scope() is scope
        scope.forget(EARLY, "default")
        assert observed() is None
        observe(LATE)
        scope.forget(EARLY, "default")
        assert observed() == LATE
