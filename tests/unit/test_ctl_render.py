"""What knitterctl prints: tables, documents, descriptions, ages; pure functions over objects."""

import json

import pytest
import yaml

from knitter_common.model import (
    Binding,
    IPClaim,
    IPGroup,
    IPGroupAddress,
    NamedOwner,
    Network,
    NetworkType,
    Node,
    PlanError,
    PodOwner,
    Pool,
    Port,
    PortAddress,
    PortSet,
    PortSetState,
    Quota,
    SandboxOwner,
    Subnet,
    Tenant,
)
from knitter_ctl import ages, document, printing, table
from knitter_ctl.description import Surroundings, describe
from knitter_ctl.kinds import IP_CLAIM, IP_GROUP, KINDS, NETWORK, NODE, PORT_SET, TENANT, find
from knitter_ctl.table import Cell

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
SANDBOX = SandboxOwner("n1", "abcdef0123456789" * 4, "knitter", "eth0")
CONTROL = Network(
    tenant="t1",
    name="control",
    id="abc123def456",
    type=NetworkType.HOST_DEVICE,
    subnets=(Subnet("10.1.0.0/24", "10.1.0.1", (Pool("10.1.0.10", "10.1.0.20"),), ("10.1.0.12",)), Subnet("2001:db8:1::/64")),
    exported_to=("t2",),
    rest=30.0,
    create_time=NOW - 90 * SECOND,
    revision=7,
    source="api",
)


def port(interface: str, network: str, *cidrs: str) -> Port:
    return Port("p", "id", network, interface, "02:4b:00:00:00:01", tuple(PortAddress(cidr, "") for cidr in cidrs))


BOUND = PortSet(
    owner=SANDBOX,
    tenant="t1",
    node="n1",
    ports=(port("eth0", "t1/control", "10.1.0.9/24", "2001:db8:1::9/64"), port("eth1", "admin/l2")),
    binding=Binding(SANDBOX.container_id, "/run/netns/x", NOW),
    create_time=NOW - 5 * SECOND,
    revision=9,
)
FAILED = PortSet(
    owner=PodOwner("t1", "web-0", "u1"),
    tenant="t1",
    state=PortSetState.FAILED,
    error=PlanError("POOL_EXHAUSTED", "nothing is left"),
)


def lines(kind: object, *entries: object, form: str = "table", single: bool = False, headers: bool = True) -> list[str]:
    return printing.lines(kind, entries, form, single=single, headers=headers, now=NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (3600, "60m"),
        (4 * 3600 + 60, "4h1m"),
        (9 * 3600, "9h"),
        (86400 * 3, "3d"),
        (86400 * 2 + 7200, "2d2h"),
        (86400 * 30 + 7200, "30d"),
    ],
)
def test_ages_have_two_units_at_most(seconds: int, text: str) -> None:
    assert ages.age(NOW - seconds * SECOND, NOW) == text


def test_an_age_in_the_future_is_zero_and_none_is_empty() -> None:
    assert ages.age(NOW + SECOND, NOW) == "0s"
    assert ages.age(0, NOW) == ""


def test_a_table_is_aligned_plain_and_has_no_trailing_blanks() -> None:
    told = lines(NETWORK, CONTROL, Network("admin", "a-rather-long-name", subnets=(Subnet("10.0.0.0/8"),), public=True))
    assert told[0].split() == ["TENANT", "NAME", "TYPE", "SUBNETS", "SHARED", "STATE", "AGE"]
    assert told[1].split() == ["t1", "control", "host-device", "10.1.0.0/24,2001:db8:1::/64", "exported:t2", "active", "90s"]
    assert told[2].split() == ["admin", "a-rather-long-name", "bridge", "10.0.0.0/8", "public", "active", "-"]
    assert len({line.index(word) for line, word in zip(told, ("TYPE", "host-device", "bridge"), strict=True)}) == 1
    assert all(line == line.rstrip() for line in told)
    assert "\x1b" not in "".join(told)


def test_port_sets_show_owner_node_state_and_interfaces() -> None:
    told = lines(PORT_SET, BOUND, FAILED)
    assert told[0].split() == ["OWNER", "NODE", "STATE", "INTERFACES", "AGE"]
    assert told[1].split() == [
        "sandbox/n1/abcdef012345/knitter/eth0", "n1", "bound", "eth0=control:10.1.0.9,2001:db8:1::9", "eth1=admin/l2", "5s",
    ]  # fmt: skip
    assert told[2].split() == ["pod/t1/web-0", "-", "failed", "error", "POOL_EXHAUSTED", "-"]


def test_wide_adds_columns_and_headers_can_be_left_out() -> None:
    assert len(lines(PORT_SET, BOUND, form="wide")[0].split()) > len(lines(PORT_SET, BOUND)[0].split())
    assert lines(NODE, Node("n1"), headers=False)[0].split() == ["n1", "known", "-", "-", "-", "-"]
    assert lines(NODE) == []


def test_every_kind_has_a_table_a_document_and_a_description() -> None:
    group = IPGroup("t1", "ig0", "control", ips=("10.1.0.9",), addresses=(IPGroupAddress("10.1.0.9", SANDBOX),))
    claim = IPClaim("t1", "vm", "control", addresses=(PortAddress("10.1.0.8/24"),), used_by=NamedOwner("t1", "vm1"))
    tenant = Tenant("t1", quota=Quota(10, 0, 0), used=Quota(3, 5, 6))
    entries = {NETWORK: CONTROL, PORT_SET: BOUND, NODE: Node("n1", last_seen=NOW), TENANT: tenant, IP_GROUP: group, IP_CLAIM: claim}
    assert set(entries) == set(KINDS)
    for kind, entry in entries.items():
        for form in ("table", "wide", "yaml", "name"):
            assert lines(kind, entry, form=form)
        assert json.loads(lines(kind, entry, form="json")[0])["items"][0]["kind"] == kind.name
        assert describe(entry, Surroundings(), NOW)
    assert lines(TENANT, tenant)[1].split() == ["t1", "active", "3/10", "5", "6", "-"]
    assert lines(IP_GROUP, group)[1].split() == ["t1", "control", "ig0", "1/1", "-"]


def test_a_document_has_spec_as_in_files_and_status_apart() -> None:
    told = document.document(NETWORK, CONTROL)
    assert told["metadata"] == {"name": "control", "namespace": "t1"}
    assert told["spec"] == {
        "type": "host-device",
        "exportedTo": ["t2"],
        "subnets": [
            {
                "cidr": "10.1.0.0/24",
                "gateway": "10.1.0.1",
                "pools": [{"start": "10.1.0.10", "end": "10.1.0.20"}],
                "exclude": ["10.1.0.12"],
            },
            {"cidr": "2001:db8:1::/64"},
        ],
        "rest": "30s",
    }
    assert told["status"] == {
        "id": "abc123def456", "state": "ACTIVE", "createTime": "2023-11-14T22:11:50Z", "revision": 7, "source": "api",
    }  # fmt: skip


def test_a_port_sets_document_names_its_owner_as_the_contract_does() -> None:
    told = document.document(PORT_SET, BOUND)
    assert told["metadata"]["name"] == SANDBOX.key
    assert told["spec"]["owner"] == {
        "sandbox": {"node": "n1", "containerId": SANDBOX.container_id, "cniNetwork": "knitter", "interface": "eth0"}
    }
    assert told["status"]["ports"][0]["addresses"] == [{"cidr": "10.1.0.9/24"}, {"cidr": "2001:db8:1::9/64"}]
    assert told["status"]["binding"]["time"] == "2023-11-14T22:13:20Z"


def test_json_of_one_name_is_the_object_and_of_a_list_a_list() -> None:
    assert json.loads(lines(NETWORK, CONTROL, form="json", single=True)[0])["metadata"]["name"] == "control"
    assert json.loads(lines(NETWORK, form="json")[0]) == {"apiVersion": "knitter.io/v1", "kind": "List", "items": []}


def test_yaml_of_several_is_several_documents() -> None:
    (text,) = lines(NETWORK, CONTROL, CONTROL, form="yaml")
    assert [entry["metadata"]["name"] for entry in yaml.safe_load_all(text)] == ["control", "control"]


def test_names_can_be_given_back_to_other_commands() -> None:
    assert lines(NETWORK, CONTROL, form="name") == ["network/t1/control"]
    assert lines(PORT_SET, FAILED, form="name") == ["portset/pod/t1/web-0/u1"]
    assert lines(IP_GROUP, IPGroup("t1", "ig0", "control"), form="name") == ["ipgroup/t1/control/ig0"]


def test_a_description_aligns_what_it_tells_and_counts_what_it_leaves_out() -> None:
    counts = {"size": 10, "used": 9, "reserved": 1, "resting": 0, "free": 0}
    pool = {"cidr": "10.1.0.0/24", "start": "10.1.0.10", "end": "10.1.0.20", **counts}
    text = "\n".join(describe(CONTROL, Surroundings(port_sets=[BOUND] * 23, pools=[pool], more=True), NOW))
    assert "10.1.0.10-10.1.0.20   10     9      1          0         0      100%" in text
    assert "Network:       t1/control\n" in text
    assert "10.1.0.10-10.1.0.20" in text
    assert "… and 3 or more others" in text
    assert "Created:       2023-11-14T22:11:50Z (90s ago)" in text
    assert text.index("Revision:") < text.index("Subnets:")


def test_a_failed_set_describes_its_error_and_wishes() -> None:
    text = "\n".join(describe(FAILED, Surroundings(), NOW))
    assert "POOL_EXHAUSTED: nothing is left" in text


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen:
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert table.coloured(Screen())  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "1")
    assert not table.coloured(Screen())  # type: ignore[arg-type]
    painted = table.layout(("A", "B"), [[Cell("x", "bad"), "y"]], colours=True)
    assert painted[1] == "\x1b[31mx\x1b[0m   y"


def test_a_cell_is_one_line() -> None:
    assert table.layout((), [["a\nb  c", ""]]) == ["a b c   -"]


@pytest.mark.parametrize(
    ("word", "kind"), [("net", NETWORK), ("Networks", NETWORK), ("ps", PORT_SET), ("no", NODE), ("ipg", IP_GROUP)]
)
def test_kinds_have_short_names(word: str, kind: object) -> None:
    assert find(word) is kind


def test_no_word_means_two_kinds() -> None:
    words = [word for kind in KINDS for word in kind.words]
    assert len(words) == len(set(words))
