"""knitter_agent.drivers.ruleset: which network reaches which, and what of it the kernel is told."""

import pytest

from knitter_agent.drivers.ruleset import Realm, Rules, changed

OWN, OTHER, ADMIN, PUBLIC = Realm("t1"), Realm("t2"), Realm("admin"), Realm("admin", public=True)
GIVEN, UNKNOWN = Realm("t2", exported_to=frozenset({"t1"})), Realm("t2", exported_to=frozenset({"?"}))


@pytest.mark.parametrize(
    ("here", "there", "reaches"),
    [
        (OWN, OWN, True),
        (OWN, OTHER, False),
        (OWN, PUBLIC, True),
        (PUBLIC, OWN, False),  # anybody may be on a public network
        (PUBLIC, PUBLIC, True),
        (OWN, ADMIN, False),
        (ADMIN, OWN, True),  # the operator may use every network
        (PUBLIC, ADMIN, False),
        (OWN, GIVEN, True),  # t1 may use it
        (GIVEN, OWN, False),  # t2 is on it, and may not use t1's
        (GIVEN, OTHER, False),  # t1 is on it, and may not use t2's
        (GIVEN, GIVEN, True),
        (OWN, UNKNOWN, False),
        (UNKNOWN, OTHER, False),
        (UNKNOWN, PUBLIC, True),
    ],
)
def test_a_network_reaches_what_all_on_it_may_use(here: Realm, there: Realm, reaches: bool) -> None:
    assert here.reaches(there) is reaches


def test_no_rule_is_no_table() -> None:
    assert Rules().table("kbra") == "add table inet kbra\ndelete table inet kbra\n"
    assert "masquerade" in Rules(masquerade=True).table("kbra")
    assert "closed" not in Rules(masquerade=True).table("kbra")
    whole = Rules(closed=frozenset({"kbrc", "kbrb"})).table("kbra")
    assert 'elements = { "kbrb", "kbrc" }' in whole
    assert "masquerade" not in whole


def test_only_what_changes_is_told() -> None:
    one, two = Rules(closed=frozenset({"kbrb"})), Rules(closed=frozenset({"kbrc", "kbrd"}))
    assert changed("kbra", one, one) == ""
    assert changed("kbra", one, two) == (
        'add element inet kbra closed { "kbrc", "kbrd" }\ndelete element inet kbra closed { "kbrb" }\n'
    )
    assert changed("kbra", Rules(), two) == two.table("kbra")
    assert changed("kbra", two, Rules()) == Rules().table("kbra")
    assert changed("kbra", one, Rules(True, one.closed)) == Rules(True, one.closed).table("kbra")
