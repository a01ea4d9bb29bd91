"""A step of a thread: what being cancelled means to whoever awaits it."""

import asyncio

import pytest

from knitter_common.steps import Step


async def _awaiting(step: Step[int]) -> "asyncio.Task[int]":
    async def wait() -> int:
        return await step

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    return task


async def test_one_that_is_held_is_waited_for_by_a_caller_who_is_cancelled() -> None:
    step = Step[int]().hold()
    task = await _awaiting(step)
    task.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    assert not step.cancel()
    step.set_result(1)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert step.result() == 1


async def test_one_that_is_not_held_is_cancelled_as_any_future() -> None:
    step = Step[int]()
    task = await _awaiting(step)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert step.cancelled()


async def test_its_outcome_is_what_the_work_returned_or_raised() -> None:
    for held in (False, True):
        good, bad = Step[int](), Step[int]()
        if held:
            good.hold(), bad.hold()
        good.set_result(7)
        bad.set_exception(ValueError("no"))
        assert await good == 7
        with pytest.raises(ValueError, match="no"):
            await bad
