"""Claims about questions that block: bounded in number, in time, and in what they hold."""

from __future__ import annotations

import asyncio
import threading

import pytest

from matchday.dashboard.asking import WAITING_MAX, Asker, Shared
from matchday.errors import OverloadedError, RefusedError, UnavailableError

DEADLINE_S = 10


def run(test) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await test()

    asyncio.run(bounded())


def test_an_answer_and_an_error_come_back_to_who_asked():
    def refused() -> None:
        raise RefusedError("no_collection", "reading nothing: there is none")

    async def test() -> None:
        asker = Asker()
        assert await asker.ask(lambda: 7) == 7
        with pytest.raises(RefusedError, match="there is none"):
            await asker.ask(refused)
        asker.close()

    run(test)


def test_questions_beyond_the_bound_are_refused_and_take_no_memory():
    hang, has_begun = threading.Event(), threading.Event()

    def question() -> None:
        has_begun.set()
        hang.wait(DEADLINE_S)

    async def test() -> None:
        asker = Asker(workers=1)
        first = asyncio.create_task(asker.ask(question))
        while not has_begun.is_set():
            await asyncio.sleep(0.001)
        waiting = [asyncio.create_task(asker.ask(hang.wait)) for _ in range(WAITING_MAX)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match=f"{WAITING_MAX} wait already"):
            await asker.ask(hang.wait)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert len(asker._jobs) == 0
        hang.set()
        await first
        assert await asker.ask(lambda: 1) == 1
        asker.close()

    run(test)


def test_where_every_thread_hangs_a_question_is_refused_at_once_until_one_is_free():
    hang = threading.Event()

    async def test() -> None:
        asker = Asker(workers=2)
        for _ in range(2):
            with pytest.raises(UnavailableError, match="none within"):
                await asker.ask(hang.wait, answer_s_max=0.1)
        with pytest.raises(UnavailableError, match="2 earlier ones hang"):
            await asker.ask(lambda: 1)
        hang.set()
        while True:
            try:
                assert await asker.ask(lambda: 1) == 1
                break
            except UnavailableError:
                await asyncio.sleep(0.01)
        asker.close()

    run(test)


def test_many_who_ask_the_same_share_one_question_and_its_error():
    asked, goes_on = [], threading.Event()

    def question() -> int:
        asked.append(1)
        assert goes_on.wait(DEADLINE_S)
        if len(asked) == 2:
            raise UnavailableError("reading the account: store does not answer")
        return len(asked)

    async def test() -> None:
        shared = Shared(question, name="test.shared")
        waiting = [asyncio.create_task(shared.ask()) for _ in range(50)]
        await asyncio.sleep(0)
        goes_on.set()
        assert await asyncio.gather(*waiting) == [1] * 50
        failed = await asyncio.gather(*[shared.ask() for _ in range(5)], return_exceptions=True)
        assert {str(one) for one in failed} == {"reading the account: store does not answer"}
        assert await shared.ask() == 3
        shared.close()

    run(test)


def test_a_shared_question_that_hangs_is_waited_for_once_and_not_asked_again():
    asked, hang = [], threading.Event()

    def question() -> int:
        asked.append(1)
        hang.wait(DEADLINE_S)
        return 1

    async def test() -> None:
        shared = Shared(question, name="test.shared")
        for _ in range(20):
            with pytest.raises(UnavailableError, match=r"bound 0\.2 s"):
                await shared.ask(answer_s_max=0.2)
        assert len(asked) == 1
        assert shared.pending_s >= 0.2
        hang.set()
        assert await shared.ask() == 1
        assert shared.pending_s == 0.0
        shared.close()

    run(test)
