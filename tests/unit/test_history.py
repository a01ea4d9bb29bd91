"""The checker of histories (harness/history.py) sees what it is for."""

from harness.history import History, Holding


def _history(*held: tuple[str, str, float, float | None]) -> History:
    return History(holdings=[Holding(who, (address,), since, until) for who, address, since, until in held])


def test_one_after_the_other_is_no_violation() -> None:
    history = _history(("a", "10.0.0.1", 1.0, 2.0), ("b", "10.0.0.1", 2.5, None), ("c", "10.0.0.2", 1.0, None))
    assert history.violations() == []
    assert [one.container for one in history.living()] == ["b", "c"]


def test_two_owners_at_one_moment_are_told_with_their_calls_and_the_kills() -> None:
    for until in (2.0, None):
        history = _history(("a", "10.0.0.1", 1.0, until), ("b", "10.0.0.1", 1.9, 3.0))
        for verb, who in (("ADD", "a"), ("kill", "manager"), ("ADD", "b"), ("ADD", "other")):
            history.call(verb, who).answer("done")
        (told,) = history.violations()
        assert told.startswith("10.0.0.1: a until")
        assert [word in told for word in ("ADD a", "kill manager", "ADD b", "other")] == [True, True, True, False]


def test_three_in_any_order_are_compared_each_with_the_next() -> None:
    history = _history(("c", "10.0.0.1", 5.0, 6.0), ("a", "10.0.0.1", 1.0, 2.0), ("b", "10.0.0.1", 3.0, 5.5))
    (told,) = history.violations()
    assert "b until 5.5, c since 5.0" in told


def test_an_address_that_did_not_rest_is_told() -> None:
    rested = ("a", "10.0.0.1", 1.0, 2.0), ("b", "10.0.0.1", 31.0, None)
    history = _history(*rested, ("c", "10.1.0.1", 1.0, 2.0), ("d", "10.1.0.1", 2.0, 3.0))
    assert history.reused(lambda address: address.startswith("10.0."), 30.0) == ["10.0.0.1: a until 2.0, b since 31.0"]
    assert history.reused(lambda address: address.startswith("10.0."), 29.0) == []
