"""Threads and coroutines wait for the same signal, and no notification is lost."""

from __future__ import annotations

import asyncio
import threading

from patroni_db.signals import Signal


def test_a_notification_between_entering_and_waiting_is_not_lost() -> None:
    signal = Signal()
    waiter = signal.enter()
    signal.notify_all()
    assert waiter.wait(0)


def test_a_wait_ends_when_time_is_up() -> None:
    assert not Signal().enter().wait(0.001)


def test_all_waiters_wake_together_whatever_they_are() -> None:
    signal = Signal()
    woken = []
    ready = threading.Semaphore(0)

    def sleep() -> None:
        waiter = signal.enter()
        ready.release()
        woken.append(waiter.wait(30))

    async def sleep_async() -> None:
        waiter = signal.enter()
        ready.release()
        woken.append(await waiter.wait_async(30))

    threads = [threading.Thread(target=sleep) for _ in range(3)]
    threads.append(threading.Thread(target=lambda: asyncio.run(sleep_async())))
    for thread in threads:
        thread.start()
    for _ in threads:
        ready.acquire()
    signal.notify_all()
    for thread in threads:
        thread.join()
    assert woken == [True] * 4


def test_notify_one_wakes_the_first_in_the_queue() -> None:
    signal = Signal()
    first, second = signal.enter(), signal.enter()
    signal.notify_one()
    assert (first.woken, second.woken) == (True, False)


def test_who_gives_up_passes_its_notification_on() -> None:
    signal = Signal()
    first, second = signal.enter(), signal.enter()
    signal.notify_one()
    first.cancel()
    assert second.woken


def test_a_cancelled_coroutine_passes_its_notification_on() -> None:
    async def main() -> bool:
        signal = Signal()
        first = signal.enter()
        task = asyncio.create_task(first.wait_async(30))
        await asyncio.sleep(0)
        second = signal.enter()
        signal.notify_one()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return second.woken

    assert asyncio.run(main())


def test_a_closed_event_loop_does_not_swallow_a_notification() -> None:
    signal = Signal()
    loop = asyncio.new_event_loop()
    task = loop.create_task(signal.enter().wait_async(30))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    second = signal.enter()
    signal.notify_one()
    assert second.woken
    task.get_coro().close()  # its loop is gone
