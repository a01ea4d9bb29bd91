"""What `knitterctl ipam` prints: views, findings, exit codes; pure functions over messages."""

from typing import Any

import pytest
from google.protobuf.message import Message

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types
from knitter_common.errors import Refused, to_status
from knitter_common.model import PlanError, PodOwner, Port, PortAddress, PortSet, PortSetState
from knitter_ctl import checking, printing, usage
from knitter_ctl.table import Cell


def pool(size: int, used: int = 0, reserved: int = 0, resting: int = 0) -> pb.PoolUsage:
    free = size - used - reserved - resting
    return pb.PoolUsage(
        cidr="10.1.0.0/24", start="10.1.0.1", end="10.1.0.254", size=size, used=used, reserved=reserved, resting=resting, free=free
    )


def shown(columns: Any, *told: Any) -> list[list[str]]:
    return [line.split() for line in printing.rows(told, columns, "table", headers=True)]


def test_networks_are_told_by_pool() -> None:
    found = [
        usage.network(pb.NetworkUsage(network="t1/a", network_id="i1", pools=[pool(254, 100, 5, 3), pool(20, 20)], port_sets=99)),
        usage.network(pb.NetworkUsage(network="t1/wire", network_id="i2", port_sets=2)),
    ]
    header, first, second, wire = shown(usage.NETWORK_COLUMNS, *usage.pools(found))
    assert header == ["NETWORK", "SETS", "CIDR", "POOL", "SIZE", "USED", "RESERVED", "RESTING", "FREE", "USE"]
    assert first == ["t1/a", "99", "10.1.0.0/24", "10.1.0.1-10.1.0.254", "254", "100", "5", "3", "146", "41%"]
    assert second[4:] == ["20", "20", "0", "0", "0", "100%"]
    assert wire == ["t1/wire", "2", *["-"] * 8]
    assert shown(usage.NETWORK_WIDE, *usage.pools(found))[1][-1] == "i1"
    assert found[0]["pools"][0]["free"] == 146
    lines = printing.rows(usage.pools(found), usage.NETWORK_COLUMNS, "name", headers=True)
    assert lines == ["t1/a", "t1/wire"]
    (text,) = printing.rows(usage.pools(found), usage.NETWORK_COLUMNS, "json", headers=True, documents=found)
    assert text.count('"network": "t1/a"') == 1


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (16_777_214, "16777214"), (10**12, "1.0e12"), (2**64 - 2**32, "1.8e19"), (2**64 - 1, "≥1.8e19"), (None, "")],
)
def test_counts_are_exact_as_long_as_anybody_reads_them(number: int | None, text: str) -> None:
    assert usage.count(number) == text


@pytest.mark.parametrize(
    ("size", "taken", "text", "style"),
    [(0, 0, "", ""), (254, 0, "0%", ""), (254, 1, "<1%", ""), (254, 253, "99%", "warn"), (254, 254, "100%", "bad"),
     (2**64 - 1, 5, "<1%", ""), (10, 9, "90%", "warn")],
)  # fmt: skip
def test_the_percentage_is_rounded_down_and_never_hides_what_is_used(size: int, taken: int, text: str, style: str) -> None:
    cell = usage.percent({"size": size, "used": taken, "reserved": 0})
    assert (cell if isinstance(cell, str) else (cell.text, cell.style)) == (text if not text else (text, style))


def test_tenants_are_told_with_what_they_may() -> None:
    full = pb.TenantUsage(
        tenant="t1", port_sets=2, used=types.Quota(networks=1, ports=4, addresses=9), quota=types.Quota(networks=10, ports=4)
    )
    (told,) = [usage.tenant(full)]
    assert shown(usage.TENANT_COLUMNS, told)[1] == ["t1", "2", "1/10", "4/4", "9"]
    assert usage.TENANT_COLUMNS["PORTS"](told) == Cell("4/4", "bad")
    assert told["quota"] == {"networks": 10, "ports": 4}


def test_nodes_are_told_with_whether_they_are_there() -> None:
    there = usage.node(pb.NodeUsage(node="n1", port_sets=1, ports=2, addresses=3, connected=True))
    assert shown(usage.NODE_COLUMNS, there, usage.node(pb.NodeUsage(node="n2")))[1:] == [
        ["n1", "yes", "1", "2", "3"],
        ["n2", "no", "0", "0", "0"],
    ]


def test_pods_are_told_by_interface_with_plane_network_and_addresses() -> None:
    control = Port("p", "i", "t1/control", "eth0", "02:00:00:00:00:01", (PortAddress("10.1.0.9/24", ""),), roles=("control", "oam"))
    media = Port(
        "p", "i", "admin/media", "eth1", "02:00:00:00:00:02", (PortAddress("10.2.0.9/24", ""), PortAddress("2001:db8::9/64", ""))
    )
    web = PortSet(PodOwner("t1", "web-0", "u"), tenant="t1", node="n1", ports=(control, media))
    failed = PortSet(PodOwner("t1", "bad", "u"), tenant="t1", state=PortSetState.FAILED, error=PlanError("POOL_EXHAUSTED", "full"))
    rows = shown(usage.POD_COLUMNS, *usage.interfaces([usage.pod(web), usage.pod(failed)]))
    assert rows == [
        ["OWNER", "NODE", "STATE", "INTERFACE", "PLANES", "NETWORK", "ADDRESSES"],
        ["pod/t1/web-0", "n1", "reserved", "eth0", "control,oam", "t1/control", "10.1.0.9"],
        ["pod/t1/web-0", "n1", "reserved", "eth1", "-", "admin/media", "10.2.0.9,2001:db8::9"],
        ["pod/t1/bad", "-", "failed", "POOL_EXHAUSTED", "-", "-", "-", "-"],
    ]
    only = usage.pod(web, ["admin/media"])
    assert [one["interface"] for one in only["interfaces"]] == ["eth1"]
    assert shown(usage.POD_WIDE, *usage.interfaces([only]))[1][-1] == "02:00:00:00:00:02"


def test_an_address_is_told_with_who_holds_it() -> None:
    owner = types.Owner(named=types.NamedOwner(tenant="t1", name="vm"))
    held = pb.AddressInfo(
        network="t1/a", address="10.1.0.9", state=pb.ADDRESS_STATE_HELD, owner=owner, interface="eth0", roles=["media"], node="n1",
        ip_claim="t1/c",
    )  # fmt: skip
    free = pb.AddressInfo(network="t1/b", address="10.1.0.9", state=pb.ADDRESS_STATE_FREE)
    orphan = pb.AddressInfo(network="t1/c", address="10.1.0.9", state=pb.ADDRESS_STATE_HELD, orphan=True)
    rows = shown(usage.ADDRESS_COLUMNS, *(usage.address(one) for one in (held, free, orphan)))
    assert rows[1] == ["t1/a", "10.1.0.9", "held", "named/t1/vm", "n1", "eth0", "media", "-", "t1/c"]
    assert rows[2] == ["t1/b", "10.1.0.9", "free", *["-"] * 6]
    assert rows[3][2:4] == ["held", "(orphan)"]
    assert usage.address(free) == {"network": "t1/b", "address": "10.1.0.9", "state": "free"}


def finding(kind: str = "ORPHAN", **fields: Any) -> pb.Finding:
    return pb.Finding(kind=pb.FindingKind.Value(f"FINDING_KIND_{kind}"), message="it differs", **fields)


def checked(*findings: pb.Finding, away: int = 0, repairs: tuple[Message, ...] = (), **summary: Any) -> checking.Checked:
    nodes = [pb.NodeNotAsked(node=f"n{number}", why="not connected") for number in range(away)]
    return checking.Checked(list(findings), pb.CheckSummary(not_asked=nodes, **summary), list(repairs))  # type: ignore[arg-type]


def test_the_exit_code_says_whether_all_is_equal() -> None:
    done, refused = pb.Repair(key="k", done="so"), pb.Repair(key="k", error=to_status(Refused("OBJECT_IN_USE", "used")))
    assert checked().exit_code == 0
    assert checked(finding()).exit_code == 1
    assert checked(away=1).exit_code == 5
    assert checked(finding(), away=1).exit_code == 1
    assert checked(finding(), repairs=(done,)).exit_code == 0
    assert checked(finding(), repairs=(done,), away=1).exit_code == 5
    assert checked(finding(), finding(), repairs=(done,)).exit_code == 1
    assert checked(finding(), repairs=(refused,)).exit_code == 1


def test_findings_are_told_with_what_was_compared() -> None:
    one = finding("NOT_IN_JOURNAL", network="t1/a", address="10.1.0.9", node="n1")
    assert shown(checking.COLUMNS, one)[1] == ["not-in-journal", "t1/a", "10.1.0.9", "n1", "it", "differs"]
    whole = checked(one, finding(repairable=True), away=12, revision=7, networks=1, port_sets=2, addresses=3, asked=["n20"])
    told = list(checking.sentences(whole, nodes=True))
    assert told[0] == "compared at revision 7: 1 networks, 2 port sets, 0 claims, 3 addresses, 0 MACs"
    assert told[1].startswith("not compared: the manager's counters")
    assert told[2] == "journals compared: n20"
    assert told[3].startswith("not asked: n0 (not connected), n1 (not connected)")
    assert told[3].endswith(" and 2 more")
    assert told[-1] == "2 differences, 1 of which can be repaired"
    assert "pods" in told[-2]
    assert list(checking.sentences(checked(counters=True), nodes=False))[1:] == [
        "not compared: the nodes' journals",
        "not compared: pods, since there is no source of pods yet",
        "no difference",
    ]
    document = checking.document(whole)
    assert document["findings"][0] == {
        "finding": "not-in-journal", "network": "t1/a", "address": "10.1.0.9", "node": "n1", "message": "it differs",
    }  # fmt: skip
    assert document["summary"]["nodesNotAsked"]["n11"] == "not connected"
