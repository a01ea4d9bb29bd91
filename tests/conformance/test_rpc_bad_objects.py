"""Networks, tenants, IP groups, claims and nodes that cannot be: each call is refused with its reason, a message that names the
field, the value and the way out, and nothing has changed."""

from collections.abc import Iterator

import pytest
from harness.bad_input import Bad, Place, changed, network, settled_manager

from knitter.v1 import manager_pb2 as pb
from knitter.v1 import types_pb2 as types


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with settled_manager() as made:
        yield made


def sub(cidr: str = "10.99.0.0/24", gateway: str = "", exclude: tuple[str, ...] = (), **fields: object) -> types.Subnet:
    """A subnet that would be fine."""
    return types.Subnet(cidr=cidr, gateway=gateway, exclude=exclude, **fields)


def pooled(*ends: tuple[str, str], gateway: str = "", **fields: object) -> types.Subnet:
    """A subnet with pools."""
    return sub(gateway=gateway, pools=[types.Pool(start=start, end=end, **fields) for start, end in ends])


def route(destination: str, gateway: str = "") -> types.Route:
    """A route of a network."""
    return types.Route(destination=destination, gateway=gateway)


def requirement(key: str, operator: str, *values: str) -> types.Usability:
    """A selector of pods."""
    expression = types.LabelRequirement(key=key, operator=operator, values=values)
    return types.Usability(pods=types.LabelSelector(match_expressions=[expression]))


def made(reason: str, words: tuple[str, ...], name: str = "n", *subnets: types.Subnet, **fields: object) -> Bad:
    """CreateNetwork."""
    return Bad("CreateNetwork", network(name, *subnets, **fields), reason, *words)


def wrong(words: tuple[str, ...], *subnets: types.Subnet, **fields: object) -> Bad:
    """CreateNetwork with a field that cannot be."""
    return made("FIELD_INVALID", words, "n", *subnets, **fields)


MACVLAN, IPVLAN = types.NETWORK_TYPE_MACVLAN, types.NETWORK_TYPE_IPVLAN
ETH9 = {"physical_network": "eth9"}
VLAN, VXLAN = types.NETWORK_TYPE_VLAN, types.NETWORK_TYPE_VXLAN

NETWORKS = [
    Bad("CreateNetwork", pb.CreateNetworkRequest(), "FIELD_INVALID", "name", "is empty", "give it a name"),
    made("FIELD_INVALID", ("name", "is empty"), ""),
    made("FIELD_INVALID", ("name", "'A_b'", "use a-z"), "A_b"),
    made("FIELD_INVALID", ("name", "'a/b'", "use a-z"), "a/b"),
    made("FIELD_INVALID", ("name", "64 characters", "at most 63"), "a" * 64),
    made("FIELD_INVALID", ("name", "1000000 characters", "at most 63"), "a" * 1_000_000),
    wrong(("namespace", "'T 1'", "use a-z"), tenant="T 1"),
    wrong(("type", "99", "BRIDGE"), type=99),
    wrong(("state", "17", "ACTIVE"), state=17),
    wrong(("public", "admin", "exportedTo"), tenant="t1", public=True),
    wrong(("subnets[0].cidr", "is missing", "10.1.0.0/24"), types.Subnet()),
    wrong(("subnets[0].cidr", "'banana'", "address"), sub("banana")),
    wrong(("subnets[0].cidr", "'10.1.0.0'", "prefix length", "10.1.0.0/24"), sub("10.1.0.0")),
    wrong(("subnets[0].cidr", "10.1.0.7/24", "write 10.1.0.0/24"), sub("10.1.0.7/24")),
    wrong(("subnets[0].cidr", "10.1.0.0/33", "at most 32"), sub("10.1.0.0/33")),
    wrong(("subnets[0].cidr", "10.1.0.0/x", "number"), sub("10.1.0.0/x")),
    wrong(("subnets[0].cidr", "127.0.0.0/8", "loopback", "choose"), sub("127.0.0.0/8")),
    wrong(("subnets[0].cidr", "0.0.0.0/0", "choose"), sub("0.0.0.0/0")),
    wrong(("subnets[0].cidr", "224.0.0.0/4", "multicast", "choose"), sub("224.0.0.0/4")),
    wrong(("subnets[0].cidr", "fe80::/64", "link-local", "choose"), sub("fe80::/64")),
    wrong(("subnets[0].cidr", "::ffff:10.0.0.0/104", "IPv4"), sub("::ffff:10.0.0.0/104")),
    wrong(("subnets[1].cidr", "10.98.0.0/16", "subnets[0]", "choose"), sub("10.98.7.0/24"), sub("10.98.0.0/16")),
    wrong(("subnets[0].gateway", "'x'", "address"), sub(gateway="x")),
    wrong(("subnets[0].gateway", "10.98.0.1", "10.99.0.0/24", "choose"), sub(gateway="10.98.0.1")),
    wrong(("subnets[0].gateway", "10.99.0.0", "network's own", "choose"), sub(gateway="10.99.0.0")),
    wrong(("subnets[0].gateway", "10.99.0.255", "broadcast", "choose"), sub(gateway="10.99.0.255")),
    wrong(("subnets[0].gateway", "fd00::", "anycast", "choose"), sub("fd00::/64", gateway="fd00::")),
    wrong(("subnets[0].pools[0].end", "10.99.0.5", "10.99.0.9", "exchange"), pooled(("10.99.0.9", "10.99.0.5"))),
    wrong(("subnets[0].pools[0].start", "10.98.0.9", "10.99.0.0/24"), pooled(("10.98.0.9", "10.99.0.5"))),
    wrong(("subnets[0].pools[0].end", "is missing"), pooled(("10.99.0.9", ""))),
    wrong(("subnets[0].pools[0]", "gateway 10.99.0.7", "two pools"), pooled(("10.99.0.5", "10.99.0.9"), gateway="10.99.0.7")),
    wrong(("subnets[0].pools[1]", "pools[0]"), pooled(("10.99.0.5", "10.99.0.9"), ("10.99.0.9", "10.99.0.12"))),
    wrong(("subnets[0].exclude[0]", "10.98.0.1", "10.99.0.0/24"), sub(exclude=("10.98.0.1",))),
    wrong(("subnets[0].exclude[1]", "10.99.0.3/31", "write 10.99.0.2/31"), sub(exclude=("10.99.0.1", "10.99.0.3/31"))),
    wrong(("subnets[0].exclude[0]", "10.0.0.0/8", "10.99.0.0/24"), sub(exclude=("10.0.0.0/8",))),
    made("LIMIT_EXCEEDED", ("subnets", "33", "32"), "n", *[sub(f"10.99.{at}.0/24") for at in range(33)]),
    wrong(("exportedTo[1]", "'T'", "use a-z"), exported_to=["t2", "T"]),
    wrong(("exportedTo[0]", "'t1'", "other tenants"), tenant="t1", exported_to=["t1"]),
    wrong(("mtu", "67", "from 68"), mtu=67),
    wrong(("mtu", "70000", "65535"), mtu=70000),
    wrong(("mtu", "1000", "IPv6", "1280"), sub("fd00::/64"), mtu=1000),
    wrong(("routes[0].destination", "is missing", "10.9.0.0/16"), routes=[types.Route(gateway="10.99.0.1")]),
    wrong(("routes[0].destination", "10.9.0.1/16", "write 10.9.0.0/16"), routes=[types.Route(destination="10.9.0.1/16")]),
    wrong(("routes[0].gateway", "no IPv4 subnet", "name the next hop"), sub(), routes=[types.Route(destination="10.9.0.0/16")]),
    wrong(("routes[0].gateway", "10.98.0.1", "choose"), sub(), routes=[route("10.9.0.0/16", "10.98.0.1")]),
    wrong(("routes[0].gateway", "fd00::1", "family"), sub(), routes=[route("10.9.0.0/16", "fd00::1")]),
    wrong(("dns.nameservers[0]", "'dns'", "address"), dns=types.Dns(nameservers=["dns"])),
    wrong(("dns.domain", "'a b'", "write for example"), dns=types.Dns(domain="a b")),
    wrong(("dns.search[1]", "'-/-'", "write for example"), dns=types.Dns(search=["a.b", "-/-"])),
    wrong(("dns.options[0]", "'a b'", "ndots:2"), dns=types.Dns(options=["a b"])),
    wrong(("physicalNetwork", "is missing", "device"), type=MACVLAN),
    wrong(("physicalNetwork", "'/dev/x'", "use at most"), type=MACVLAN, physical_network="/dev/x"),
    wrong(("segmentationId", "bridge", "7", "remove it"), segmentation_id=7),
    wrong(("segmentationId", "4095", "4094"), type=VLAN, physical_network="eth9", segmentation_id=4095),
    wrong(("segmentationId", "16777216", "16777215"), type=VXLAN, segmentation_id=2**24),
    wrong(("vlanTransparent", "segmentationId"), type=VLAN, physical_network="e", segmentation_id=7, vlan_transparent=True),
    wrong(("masquerade", "externalGateway", "set one"), masquerade=True, external_gateway=True),
    wrong(("masquerade", "ipvlan", "use bridge"), type=IPVLAN, physical_network="eth9", masquerade=True),
    wrong(("rest", "-1", "from 0"), rest={"seconds": -1}),
    wrong(("rest", "604800", "9999999"), rest={"seconds": 9_999_999}),
    wrong(("usableBy.pods.matchExpressions[0].operator", "'in'", "did you mean 'In'"), usable_by=requirement("a", "in", "b")),
    wrong(("usableBy.pods.matchExpressions[0].values", "is empty", "In needs"), usable_by=requirement("a", "In")),
    wrong(("usableBy.pods.matchExpressions[0].values", "must be empty"), usable_by=requirement("a", "Exists", "b")),
    wrong(("usableBy.pods.matchExpressions[0].key", "'a b'", "write for example"), usable_by=requirement("a b", "Exists")),
    wrong(("usableBy.pods.matchExpressions[0].values[0]", "'a b'", "use at most"), usable_by=requirement("a", "In", "a b")),
    wrong(("pools[0].usableBy.pods", "'x'", "known are"), pooled(("10.99.0.1", "10.99.0.9"), usable_by=requirement("a", "x"))),
    wrong(("description", "characters"), description="x" * 100_000),
    wrong(("source", "'somewhere'", "api, crd or files:<name>"), source="somewhere"),
    made("SUBNET_OVERLAPS", ("subnets[0].cidr", "10.8.0.0/16", "admin/devices"), "n", sub("10.8.0.0/16"), type=MACVLAN, **ETH9),
    made("SEGMENT_TAKEN", ("segmentationId", "77", "admin/overlay", "choose"), "n", type=VXLAN, segmentation_id=77),
    made("OBJECT_EXISTS", ("admin/default", "subnets", "update it"), "default", sub()),
    made("QUOTA_EXCEEDED", ("small", "1 of 1", "networks"), "second", tenant="small"),
    made("TENANT_DENIED", ("plain", "vxlan"), "n", tenant="plain", type=VXLAN),
    made("TENANT_DENIED", ("type", "t9", "macvlan", "allowed are"), "n", tenant="t9", type=MACVLAN, **ETH9),
    made("TENANT_DENIED", ("physicalNetwork", "devices", "eth9", "eth1"), "n", tenant="devices", type=MACVLAN, **ETH9),
]  # fmt: skip

DEFAULT = types.Subnet(cidr="10.0.0.0/16", gateway="10.0.0.1")
POOL = types.Pool(start="10.1.0.10", end="10.1.0.20")
V6 = types.Subnet(cidr="2001:db8:1::/64")


def updated(reason: str, words: tuple[str, ...], name: str, *subnets: types.Subnet, **fields: object) -> Bad:
    """UpdateNetwork."""
    return Bad("UpdateNetwork", changed(name, *subnets, **fields), reason, *words)


def a_with(gateway: str = "10.1.0.1", start: str = "10.1.0.10", exclude: tuple[str, ...] = ("10.1.0.15",)) -> types.Subnet:
    """The subnet of t1/a, changed."""
    return types.Subnet(cidr="10.1.0.0/24", gateway=gateway, pools=[types.Pool(start=start, end="10.1.0.20")], exclude=exclude)


def deleted(kind: str, reason: str, *words: str, **fields: object) -> Bad:
    """Delete<kind>."""
    return Bad(f"Delete{kind}", getattr(pb, f"Delete{kind}Request")(**fields), reason, *words)


def read(kind: str, reason: str, *words: str, **fields: object) -> Bad:
    """Get<kind>."""
    return Bad(f"Get{kind}", getattr(pb, f"Get{kind}Request")(**fields), reason, *words)


CHANGES = [
    updated("NETWORK_NOT_FOUND", ("'defaul'", "did you mean 'default'"), "defaul"),
    updated("NETWORK_NOT_FOUND", ("t7", "'a'", "none yet"), "a", tenant="t7"),
    updated("REVISION_STALE", ("admin/default", "revision", "not 1"), "default", DEFAULT, public=True, revision=1),
    updated("SOURCE_FOREIGN", ("admin/declared", "files:x", "api"), "declared", sub()),
    updated("OBJECT_IN_USE", ("removing subnet 10.1.0.0/24", "10.1.0.10", "t1/vm"), "a", V6, tenant="t1"),
    updated("OBJECT_IN_USE", ("10.1.0.0/24", "10.1.0.10", "t1/vm"), "a", a_with(start="10.1.0.11"), V6, tenant="t1"),
    updated("OBJECT_IN_USE", ("10.1.0.0/24", "10.1.0.10", "t1/vm"), "a", a_with(exclude=("10.1.0.10",)), V6, tenant="t1"),
    updated("OBJECT_IN_USE", ("gateway", "10.1.0.10", "t1/vm"), "a", a_with(gateway="10.1.0.2"), V6, tenant="t1"),
    updated("OBJECT_IN_USE", ("t1/a", "type", "t1/vm"), "a", a_with(), V6, tenant="t1", type=VXLAN),
    updated("OBJECT_IN_USE", ("admin/shared", "t2", "t2/user"), "shared", types.Subnet(cidr="10.3.0.0/24")),
    updated("FIELD_INVALID", ("name", "is empty"), ""),
    deleted("Network", "OBJECT_IN_USE", "t1/a", "t1/vm", tenant="t1", name="a"),
    deleted("Network", "REVISION_STALE", "admin/default", "not 1", name="default", revision=1),
    deleted("Network", "SOURCE_FOREIGN", "files:x", name="declared"),
    deleted("Network", "FIELD_INVALID", "name", "is empty", "give it a name"),
    deleted("Network", "FIELD_INVALID", "name", "'A/b'", "use a-z", name="A/b"),
    deleted("Network", "FIELD_INVALID", "tenant", "'A/b'", "use a-z", tenant="A/b", name="b"),
    deleted("Network", "FIELD_INVALID", "source", "'me'", "api, crd or files:<name>", name="default", source="me"),
    read("Network", "NETWORK_NOT_FOUND", "'defaul'", "did you mean 'default'", name="defaul"),
    read("Network", "FIELD_INVALID", "name", "is empty"),
]


def tenant(reason: str, words: tuple[str, ...], method: str = "CreateTenant", **fields: object) -> Bad:
    """CreateTenant, or UpdateTenant."""
    return Bad(method, getattr(pb, f"{method}Request")(tenant=types.Tenant(**fields)), reason, *words)


TENANTS = [
    tenant("FIELD_INVALID", ("name", "is empty", "give it a name")),
    tenant("FIELD_INVALID", ("name", "'A'", "use a-z"), name="A"),
    tenant("FIELD_INVALID", ("quota.networks", "1001", "1000"), name="x", quota=types.Quota(networks=1001)),
    tenant("FIELD_INVALID", ("quota.ports", "4294967295"), name="x", quota=types.Quota(ports=2**32 - 1)),
    tenant("FIELD_INVALID", ("allowed_types[1]", "99", "BRIDGE"), name="x", allowed_types=[1, 99]),
    tenant("FIELD_INVALID", ("allowedPhysicalNetworks[0]", "'/'", "use at most"), name="x", allowed_physical_networks=["/"]),
    tenant("FIELD_INVALID", ("labels", "'a b'", "write for example"), name="x", labels={"a b": "c"}),
    tenant("FIELD_INVALID", ("labels", "'b c'", "use at most"), name="x", labels={"a": "b c"}),
    tenant("FIELD_INVALID", ("source", "'x'", "api, crd or files:<name>"), name="x", source="x"),
    tenant("OBJECT_EXISTS", ("small", "update it"), name="small"),
    tenant("OBJECT_NOT_FOUND", ("'nobody'", "known are admin"), "UpdateTenant", name="nobody"),
    tenant("REVISION_STALE", ("small", "not 1"), "UpdateTenant", name="small", revision=1),
    tenant("SOURCE_FOREIGN", ("small", "api", "files:y"), "UpdateTenant", name="small", source="files:y"),
    tenant("OBJECT_IN_USE", ("quota.addresses", "1", "4"), "UpdateTenant", name="t1", quota=types.Quota(addresses=1)),
    read("Tenant", "OBJECT_NOT_FOUND", "'smal'", "did you mean 'small'", name="smal"),
    read("Tenant", "FIELD_INVALID", "name", "is empty"),
    deleted("Tenant", "OBJECT_BUILT_IN", "admin", name="admin"),
    deleted("Tenant", "FIELD_INVALID", "name", "is empty"),
    deleted("Tenant", "REVISION_STALE", "small", "not 1", name="small", revision=1),
]


def group(reason: str, words: tuple[str, ...], method: str = "CreateIPGroup", network: str = "groups", **fields: object) -> Bad:
    """CreateIPGroup, or UpdateIPGroup."""
    return Bad(method, getattr(pb, f"{method}Request")(ip_group=types.IPGroup(network=network, **fields)), reason, *words)


GROUPS = [
    group("FIELD_INVALID", ("name", "is empty", "give it a name")),
    group("FIELD_INVALID", ("network", "is empty", "name a network"), name="x", network=""),
    group("FIELD_INVALID", ("network", "'a/b/c'", "tenant/name"), name="x", network="a/b/c"),
    group("NETWORK_NOT_FOUND", ("network", "'group'", "did you mean 'groups'"), name="x", network="group"),
    group("FIELD_INVALID", ("size", "2", "ips", "not both"), name="x", size=2, ips=["10.4.0.9"]),
    group("FIELD_INVALID", ("size", "1025", "1024"), name="x", size=1025),
    group("FIELD_INVALID", ("ips[0]", "'10.4.0'", "address"), name="x", ips=["10.4.0"]),
    group("FIELD_INVALID", ("ips[1]", "10.4.0.9", "once"), name="x", ips=["10.4.0.9", "10.4.0.9"]),
    group("LIMIT_EXCEEDED", ("ips", "33", "32"), name="x", ips=[f"10.4.0.{at}" for at in range(20, 53)]),
    group("ADDRESS_UNUSABLE", ("10.3.0.9", "10.4.0.0/24"), name="x", ips=["10.3.0.9"]),
    group("ADDRESS_UNUSABLE", ("10.4.0.255",), name="x", ips=["10.4.0.255"]),
    group("ADDRESS_TAKEN", ("10.4.0.10", "g"), name="x", ips=["10.4.0.10"]),
    group("POOL_EXHAUSTED", ("admin/groups", "500"), name="x", size=500),
    group("TENANT_DENIED", ("t1", "admin/groups"), name="x", tenant="t1", network="admin/groups", size=1),
    group("OBJECT_EXISTS", ("g", "ips", "update it"), name="g", ips=["10.4.0.12"]),
    group("OBJECT_NOT_FOUND", ("'h'", "known are g, none"), "UpdateIPGroup", name="h", size=1),
    group("OBJECT_IN_USE", ("10.4.0.10", "admin/gu"), "UpdateIPGroup", name="g", ips=["10.4.0.12"]),
    group("REVISION_STALE", ("g", "not 1"), "UpdateIPGroup", name="g", ips=["10.4.0.10"], revision=1),
    read("IPGroup", "OBJECT_NOT_FOUND", "'h'", "known are g, none", network="groups", name="h"),
    read("IPGroup", "FIELD_INVALID", "name", "is empty", network="groups"),
    read("IPGroup", "FIELD_INVALID", "network", "is empty", name="g"),
    deleted("IPGroup", "OBJECT_IN_USE", "g", "admin/gu", network="groups", name="g"),
    deleted("IPGroup", "FIELD_INVALID", "name", "is empty", network="groups"),
    deleted("IPGroup", "FIELD_INVALID", "network", "is empty", name="g"),
]


def claim(reason: str, words: tuple[str, ...], method: str = "CreateIPClaim", network: str = "default", **fields: object) -> Bad:
    """CreateIPClaim, or UpdateIPClaim."""
    return Bad(method, getattr(pb, f"{method}Request")(ip_claim=types.IPClaim(network=network, **fields)), reason, *words)


CLAIMS = [
    claim("FIELD_INVALID", ("name", "is empty", "give it a name")),
    claim("FIELD_INVALID", ("interface", "'a/b'", "use no '/'"), name="x", interface="a/b"),
    claim("FIELD_INVALID", ("mac", "'zz'", "write six octets"), name="x", mac="zz"),
    claim("FIELD_INVALID", ("wantedAddresses[0]", "'x'", "address"), name="x", wanted_addresses=["x"]),
    claim("FIELD_INVALID", ("wantedAddresses[1]", "10.0.0.9", "once"), name="x", wanted_addresses=["10.0.0.9", "10.0.0.9/16"]),
    claim("NETWORK_NOT_FOUND", ("network", "'defaul'", "did you mean 'default'"), name="x", network="defaul"),
    claim("ADDRESS_UNUSABLE", ("10.1.0.9", "10.0.0.0/16"), name="x", wanted_addresses=["10.1.0.9"]),
    claim("ADDRESS_TAKEN", ("10.2.0.1", "admin/x1"), name="x", network="tiny", wanted_addresses=["10.2.0.1"]),
    claim("POOL_EXHAUSTED", ("admin/tiny", "10.2.0.0/30"), name="x", network="tiny"),
    claim("MAC_TAKEN", ("mac", "02:00:00:00:00:0a", "t1/vm"), name="x", tenant="t1", network="a", mac="02:00:00:00:00:0a"),
    claim("OBJECT_EXISTS", ("idle", "interface", "update it"), name="idle", interface="eth7"),
    claim("OBJECT_NOT_FOUND", ("'idel'", "did you mean 'idle'"), "UpdateIPClaim", name="idel"),
    claim("OBJECT_IN_USE", ("used", "admin/claimant"), "UpdateIPClaim", name="used", interface="eth7"),
    read("IPClaim", "OBJECT_NOT_FOUND", "'idel'", "did you mean 'idle'", name="idel"),
    read("IPClaim", "FIELD_INVALID", "name", "is empty"),
    deleted("IPClaim", "OBJECT_IN_USE", "used", "admin/claimant", name="used"),
    deleted("IPClaim", "FIELD_INVALID", "name", "is empty"),
]


def node(reason: str, words: tuple[str, ...], method: str = "CreateNode", **fields: object) -> Bad:
    """CreateNode, or UpdateNode."""
    return Bad(method, getattr(pb, f"{method}Request")(node=types.Node(**fields)), reason, *words)


def adopt(reason: str, *words: str, **fields: str) -> Bad:
    """Adopt."""
    return Bad("Adopt", pb.AdoptRequest(**fields), reason, *words)


NODES = [
    node("FIELD_INVALID", ("name", "is empty", "give it a name")),
    node("FIELD_INVALID", ("name", "'N_1'", "use a-z"), name="N_1"),
    node("FIELD_INVALID", ("name", "254 characters", "at most 253"), name="a" * 254),
    node("FIELD_INVALID", ("underlayAddress", "192.0.2.1/24", "the address alone"), name="x", underlay_address="192.0.2.1/24"),
    node("FIELD_INVALID", ("underlayAddress", "127.0.0.1", "loopback"), name="x", underlay_address="127.0.0.1"),
    node("FIELD_INVALID", ("labels", "'a b'", "write for example"), name="x", labels={"a b": ""}),
    node("OBJECT_EXISTS", ("n1", "update it"), name="n1", underlay_address="192.0.2.9"),
    node("OBJECT_NOT_FOUND", ("'n2'", "did you mean 'n1'"), "UpdateNode", name="n2"),
    node("REVISION_STALE", ("n1", "not 1"), "UpdateNode", name="n1", revision=1),
    node("SOURCE_FOREIGN", ("n1", "api", "crd"), "UpdateNode", name="n1", source="crd"),
    read("Node", "OBJECT_NOT_FOUND", "'n2'", "did you mean 'n1'", name="n2"),
    read("Node", "FIELD_INVALID", "name", "is empty"),
    deleted("Node", "REVISION_STALE", "n1", "not 1", name="n1", revision=1),
    deleted("Node", "FIELD_INVALID", "name", "is empty"),
    adopt("FIELD_INVALID", "kind", "'network'", "did you mean 'Network'", kind="network", name="a", source="api"),
    adopt("FIELD_INVALID", "source", "'x'", "write api, crd or files:<name>", kind="Network", name="a", source="x"),
    adopt("FIELD_INVALID", "source", "''", "write api, crd or files:<name>", kind="Network", name="a"),
    adopt("FIELD_INVALID", "name", "is empty", kind="Network", source="api"),
    adopt("OBJECT_NOT_FOUND", "Network", "'nope'", "admin", kind="Network", name="nope", source="api"),
    adopt("OBJECT_NOT_FOUND", "IPGroup", "'g'", kind="IPGroup", name="g", source="api"),
]


@pytest.mark.parametrize("bad", [*NETWORKS, *CHANGES, *TENANTS, *GROUPS, *CLAIMS, *NODES], ids=repr)
def test_what_cannot_be_is_refused(place: Place, bad: Bad) -> None:
    place.refused(bad)
