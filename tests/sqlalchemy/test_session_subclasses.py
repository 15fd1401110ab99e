"""Which subclasses of routing sessions are refused when they are made."""

from __future__ import annotations

from typing import Any

import pytest
import sqlmodel
from flask_sqlalchemy.session import Session as FlaskSession
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelAsyncSession

from sqlalchemy_dialect import AsyncRoutingSession, RoutingSession


class ModelSession(sqlmodel.Session, RoutingSession):
    pass


def test_a_get_bind_that_cannot_take_what_routing_needs_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Narrow\.get_bind\(\) must take \*\*kwargs"):

        class Narrow(RoutingSession):
            def get_bind(self, mapper: Any = None, clause: Any = None) -> Any:  # type: ignore[override]
                return super().get_bind(mapper, clause=clause)


def test_one_that_comes_from_another_base_class_is_refused_too() -> None:
    class Narrow(Session):
        def get_bind(self, mapper: Any = None, clause: Any = None) -> Any:  # type: ignore[override]
            return super().get_bind(mapper, clause=clause)

    with pytest.raises(TypeError, match=r"Narrow\.get_bind\(\) must take \*\*kwargs"):
        type("Mixed", (Narrow, RoutingSession), {})
    type("BehindRouting", (RoutingSession, Narrow), {})


def test_sessions_of_other_libraries_are_taken() -> None:
    for base in (sqlmodel.Session, FlaskSession):
        type("First", (RoutingSession, base), {})
        type("Last", (base, RoutingSession), {})


@pytest.mark.parametrize(
    "bases", [(AsyncRoutingSession, SQLModelAsyncSession), (SQLModelAsyncSession, AsyncRoutingSession)]
)
def test_an_asynchronous_session_needs_a_synchronous_one_that_does_what_both_need(bases: tuple[type, ...]) -> None:
    needed = r"Both\.sync_session_class must be a subclass of all of these: .*RoutingSession, sqlmodel\.orm.*Session"
    with pytest.raises(TypeError, match=needed):
        type("Both", bases, {})
    type("Both", bases, {"sync_session_class": ModelSession})


def test_an_asynchronous_session_is_not_given_a_synchronous_one_that_does_not_route() -> None:
    with pytest.raises(TypeError, match=r"sync_session_class must be a subclass"):
        type("Plain", (AsyncRoutingSession,), {"sync_session_class": Session})
    engine = create_async_engine("postgresql+psycopg://")
    with pytest.raises(ArgumentError, match="sync_session_class is a subclass of RoutingSession"):
        AsyncRoutingSession(engine, sync_session_class=Session)
    assert isinstance(AsyncRoutingSession(engine, sync_session_class=ModelSession).sync_session, ModelSession)
