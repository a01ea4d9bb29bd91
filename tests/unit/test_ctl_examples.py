"""The files in deploy/examples are what they say: objects that Knitter takes, a pod whose annotation plans three interfaces."""

from pathlib import Path

from knitter_common.objects import read_text
from knitter_ctl import declared

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "deploy" / "examples"


def test_the_folder_can_be_applied_as_it_is() -> None:
    found = declared.read([str(EXAMPLES)], recursive=False, parse=read_text, stdin=lambda: "")
    networks = {one.entry.name: one.entry for one in found if one.kind.name == "Network"}
    assert {"control", "media", "oam"} <= set(networks)
    assert len(networks["media"].subnets) == 2
    assert networks["control"].tenant == "admin"
