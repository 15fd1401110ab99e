"""Something in force around every call of a function: also while a coroutine waits, and at each step of a generator.

Between its steps a generator lends its caller's context variables. What is put around it must not stay in force there,
so it is entered for each step and left again.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable
    from contextlib import AbstractContextManager

    Enter = Callable[[], AbstractContextManager[Any]]

__all__ = ["around", "in_steps", "in_steps_async"]

F = TypeVar("F", bound="Callable[..., Any]")


def around(function: F, begin: Callable[[dict[str, Any]], Enter]) -> F:
    """Return `function` with a context around it.

    :param function: a function, a coroutine function, or either kind of generator function
    :param begin: called with the keyword arguments of each call, which it may change; what it returns makes a context
        manager for each step
    """
    make: Callable[[Any, Any], Any]
    if inspect.isasyncgenfunction(function):
        make = _generate_async
    elif inspect.isgeneratorfunction(function):
        make = _generate
    elif iscoroutinefunction(function):
        make = _await
    else:
        make = _call
    return cast("F", functools.wraps(function)(make(function, begin)))


def in_steps(chunks: Iterable[Any], enter: Enter) -> Generator[Any]:
    """Yield `chunks`, each made in a context that `enter` makes."""
    iterator = iter(chunks)
    while True:
        with enter():
            try:
                chunk = next(iterator)
            except StopIteration:
                return
        yield chunk


async def in_steps_async(chunks: AsyncIterable[Any], enter: Enter) -> AsyncGenerator[Any]:
    """Do the same for an asynchronous iterable."""
    iterator = aiter(chunks)
    while True:
        with enter():
            try:
                chunk = await anext(iterator)
            except StopAsyncIteration:
                return
        yield chunk


def _call(function: Any, begin: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        with begin(kwargs)():
            return function(*args, **kwargs)

    return call


def _await(function: Any, begin: Any) -> Any:
    async def call(*args: Any, **kwargs: Any) -> Any:
        with begin(kwargs)():
            return await function(*args, **kwargs)

    return call


def _generate(function: Any, begin: Any) -> Any:
    def generate(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        enter = begin(kwargs)
        generator = function(*args, **kwargs)
        step = functools.partial(generator.send, None)
        while True:
            with enter():
                try:
                    value = step()
                except StopIteration as end:
                    return end.value
            try:
                sent = yield value
            except GeneratorExit:
                with enter():
                    generator.close()
                raise
            except BaseException as exc:  # noqa: BLE001 - for the generator to handle
                step = functools.partial(generator.throw, exc)
            else:
                step = functools.partial(generator.send, sent)

    return generate


def _generate_async(function: Any, begin: Any) -> Any:
    async def generate(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        enter = begin(kwargs)
        generator = function(*args, **kwargs)
        step = functools.partial(generator.asend, None)
        while True:
            with enter():
                try:
                    value = await step()
                except StopAsyncIteration:
                    return
            try:
                sent = yield value
            except GeneratorExit:
                with enter():
                    await generator.aclose()
                raise
            except BaseException as exc:  # noqa: BLE001 - for the generator to handle
                step = functools.partial(generator.athrow, exc)
            else:
                step = functools.partial(generator.asend, sent)

    return generate
