"""Every store against a plain dict: any order of commits, loads, compactions, restarts and hand-overs."""

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from harness.stores import KINDS, everything, open_site, take
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from knitter_manager.store.protocol import AtRevision, Commit, Compacted, Condition, Conflict, PrefixEmpty

T = TypeVar("T")

KEYS = ("a", "a/1", "a/2", "ab", "b/é", "b/東", "c")
EXAMPLES = {"memory": 60, "sqlite": 30, "etcd": 8}

keys = st.sampled_from(KEYS)
values = st.binary(max_size=8)


@st.composite
def commits(draw: st.DrawFn) -> tuple[list[tuple[str, str]], dict[str, bytes], list[str]]:
    """Conditions by how they relate to the model (current, absent, stale, prefix), puts, deletes."""
    conditions = draw(st.lists(st.tuples(st.sampled_from(["now", "now", "now", "absent", "stale", "prefix"]), keys), max_size=3))
    puts = draw(st.dictionaries(keys, values, max_size=3))
    deletes = draw(st.lists(keys.filter(lambda key: key not in puts), max_size=2)) if len(puts) < len(KEYS) else []
    return conditions, puts, deletes


class StoreMachine(RuleBasedStateMachine):
    """One place, one writer at a time, and the model beside it."""

    kind: str

    @initialize()
    def start(self) -> None:
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.folder = tempfile.TemporaryDirectory()
        self.site = self.run(self.stack.enter_async_context(open_site(self.kind, Path(self.folder.name))))
        self.store = self.run(self.site.open_writer("w0"))
        self.model: dict[str, tuple[bytes, int]] = {}
        self.log: list[Commit] = []
        self.floor = self.begin = self.run(self.store.load()).revision
        self.generation = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def real(self, conditions: list[tuple[str, str]]) -> list[Condition]:
        """The conditions with revisions as of now."""
        made: list[Condition] = []
        for how, key in conditions:
            revision = self.model[key][1] if key in self.model else 0
            if how == "prefix":
                made.append(PrefixEmpty(key))
            else:
                made.append(AtRevision(key, {"now": revision, "absent": 0, "stale": revision + 1}[how]))
        return made

    def failing(self, conditions: list[Condition]) -> str | None:
        """The key that the model says is in the way."""
        for condition in conditions:
            if isinstance(condition, PrefixEmpty):
                below = sorted(key for key in self.model if key.startswith(condition.prefix))
                if below:
                    return below[0]
            elif (self.model[condition.key][1] if condition.key in self.model else 0) != condition.revision:
                return condition.key
        return None

    async def outcome(self, conditions: list[Condition], puts: dict[str, bytes], deletes: list[str]) -> int | Conflict:
        try:
            return await self.store.commit(conditions, puts, deletes)
        except Conflict as conflict:
            return conflict

    def apply(self, revision: int, puts: dict[str, bytes], deletes: list[str]) -> None:
        gone = tuple(key for key in dict.fromkeys(deletes) if key in self.model)
        if not puts and not gone:
            return
        assert revision > (self.log[-1].revision if self.log else self.begin)
        for key in gone:
            del self.model[key]
        self.model.update((key, (value, revision)) for key, value in puts.items())
        self.log.append(Commit(revision, puts, gone))

    @rule(commit=commits())
    def commit(self, commit: tuple[list[tuple[str, str]], dict[str, bytes], list[str]]) -> None:
        wanted, puts, deletes = commit
        conditions = self.real(wanted)
        blamed = self.failing(conditions)
        result = self.run(self.outcome(conditions, puts, deletes))
        if isinstance(result, Conflict):
            assert result.key == blamed
            current = (result.current.value, result.current.revision) if result.current else None
            assert current == self.model.get(result.key)
        else:
            assert blamed is None
            self.apply(result, puts, deletes)

    @rule(group=st.lists(commits(), min_size=2, max_size=5))
    def commit_at_once(self, group: list[tuple[list[tuple[str, str]], dict[str, bytes], list[str]]]) -> None:
        """Conditions as of now; whichever order the store took, the outcomes must fit it.

        Deletes come with puts only: else two of them may tell the same revision, and their order could not be known.
        """
        asked = [(self.real(wanted), puts, deletes if puts else []) for wanted, puts, deletes in group]

        async def together() -> list[int | Conflict]:
            return list(await asyncio.gather(*(self.outcome(*one) for one in asked)))

        results = self.run(together())
        writing = {result: one for result, one in zip(results, asked, strict=True) if isinstance(result, int) and one[1]}
        assert len(writing) == sum(isinstance(result, int) and bool(one[1]) for result, one in zip(results, asked, strict=True))
        for revision, (conditions, puts, deletes) in sorted(writing.items()):
            assert self.failing(conditions) is None
            self.apply(revision, puts, deletes)

    @precondition(lambda self: self.log)
    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        revision = data.draw(st.sampled_from([commit.revision for commit in self.log]))
        self.run(self.store.compact(revision))
        self.floor = max(self.floor, revision)

    @precondition(lambda self: self.log)
    @rule(data=st.data())
    def follow(self, data: st.DataObject) -> None:
        after = data.draw(st.sampled_from([self.begin, *(commit.revision for commit in self.log)]))
        if after >= self.log[-1].revision:
            return
        if after < self.floor:
            with pytest.raises(Compacted):
                self.run(take(self.store, after, self.log[-1].revision))
        else:
            told = self.run(take(self.store, after, self.log[-1].revision))
            assert told == [commit for commit in self.log if commit.revision > after]

    @rule(hand_over=st.booleans())
    def reopen(self, hand_over: bool) -> None:
        """A restart, or another instance that was there before."""
        self.generation += 1

        async def change() -> None:
            heir = await self.site.open() if hand_over else None
            await self.store.close()
            self.store = heir or await self.site.open()
            await self.store.acquire_writer(f"w{self.generation}")

        self.run(change())

    @invariant()
    def the_state_is_the_models(self) -> None:
        if not hasattr(self, "store"):
            return
        state = self.run(everything(self.store))
        assert {key: (record.value, record.revision) for key, record in state.items()} == self.model
        found = self.run(self.store.get(KEYS))
        assert dict(found) == state

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.run(self.stack.aclose())
            self.runner.close()
            self.folder.cleanup()


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_behaves_like_a_dict(kind: str) -> None:
    machine = type("Machine", (StoreMachine,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES[kind], stateful_step_count=20, deadline=None, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
