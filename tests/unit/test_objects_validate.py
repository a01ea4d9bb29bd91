"""What is refused of an object without knowing any other, and what its canonical form is."""
# ruff: noqa: E501 - the tables read best as rows

import dataclasses
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knitter_common.addresses import cidr
from knitter_common.errors import Invalid
from knitter_common.model import (
    Dns,
    IPClaim,
    IPGroup,
    LabelRequirement,
    LabelSelector,
    Network,
    NetworkType,
    Node,
    Pool,
    Quota,
    Route,
    Subnet,
    Tenant,
    Usability,
)
from knitter_common.objects.validate import (
    validate_ip_claim,
    validate_ip_group,
    validate_network,
    validate_node,
    validate_tenant,
)

V4, V6 = Subnet("10.1.0.0/24", "10.1.0.1"), Subnet("2001:db8:1::/64", "2001:db8:1::1")
BASE = Network("t1", "control", subnets=(V4, V6))


def with_subnet(**changes: Any) -> Network:
    return dataclasses.replace(BASE, subnets=(dataclasses.replace(Subnet("10.1.0.0/24"), **changes),))


def with_pools(*pools: tuple[str, str], gateway: str = "") -> Network:
    return with_subnet(gateway=gateway, pools=tuple(Pool(start, end) for start, end in pools))


def net(**changes: Any) -> Network:
    return dataclasses.replace(BASE, **changes)


def usable(key: str = "app", operator: str = "In", values: tuple[str, ...] = ("x",)) -> Usability:
    return Usability(pods=LabelSelector(match_expressions=(LabelRequirement(key, operator, values),)))


SELECTOR = "usableBy.pods.matchExpressions[0]"

BAD_NETWORKS: list[tuple[Network, str, str]] = [
    (net(name=""), "metadata.name", "is empty; give it a name"),
    (net(name="Control"), "metadata.name", "'Control' is no name; use a-z"),
    (net(name="-x"), "metadata.name", "letter or digit first and last"),
    (net(name="a.b"), "metadata.name", "'a.b' is no name"),
    (net(name="x" * 64), "metadata.name", "is 64 characters long"),
    (net(name="x\n"), "metadata.name", "is no name"),
    (net(tenant="T1"), "metadata.namespace", "'T1' is no name"),
    (net(public=True), "public", "only networks of admin are public; use exportedTo"),
    (net(exported_to=("t2", "t_3")), "exportedTo[1]", "'t_3' is no name"),
    (net(exported_to=("t1",)), "exportedTo[0]", "'t1' owns the network"),
    (net(mtu=67), "mtu", "67 is no MTU in bytes; it must be from 68 to 65535"),
    (net(mtu=70000), "mtu", "it must be from 68 to 65535"),
    (net(mtu=1279), "mtu", "1279 is too small for IPv6; it must be at least 1280"),
    (net(description="a\nb"), "description", "write one line"),
    (net(description="x" * 1025), "description", "is 1025 characters long; at most 1024"),
    (net(rest=-1.0), "rest", "-1.0 seconds is no time to rest"),
    (net(rest=float("nan")), "rest", "must be from 0 to 604800 seconds"),
    (net(rest=1e9), "rest", "must be from 0 to 604800 seconds"),
    # subnets
    (with_subnet(cidr=""), "subnets[0].cidr", "is missing; write for example 10.1.0.0/24"),
    (with_subnet(cidr="10.1.0.5/24"), "subnets[0].cidr", "'10.1.0.5/24' has host bits set; write 10.1.0.0/24"),
    (with_subnet(cidr="2001:db8::1/64"), "subnets[0].cidr", "has host bits set; write 2001:db8::/64"),
    (with_subnet(cidr="10.1.0.0"), "subnets[0].cidr", "has no prefix length; write for example 10.1.0.0/24"),
    (with_subnet(cidr="2001:db8::7"), "subnets[0].cidr", "write for example 2001:db8::/64"),
    (with_subnet(cidr="10.1.0.0/33"), "subnets[0].cidr", "the prefix length of IPv4 is at most 32"),
    (with_subnet(cidr="10.1.0.0/-1"), "subnets[0].cidr", "the prefix length is a number"),
    (with_subnet(cidr="10.1.0.0/255.255.255.0"), "subnets[0].cidr", "the prefix length is a number"),
    (with_subnet(cidr="10.1.0.0/٢٤"), "subnets[0].cidr", "the prefix length is a number"),
    (with_subnet(cidr="10.1.0/24"), "subnets[0].cidr", "'10.1.0' is no IPv4 or IPv6 address"),
    (with_subnet(cidr="10.01.0.0/24"), "subnets[0].cidr", "write 10.1.0.0"),
    (with_subnet(cidr="ten/24"), "subnets[0].cidr", "'ten' is no IPv4 or IPv6 address"),
    (with_subnet(cidr="127.0.0.0/24"), "subnets[0].cidr", "is loopback; choose another"),
    (with_subnet(cidr="0.0.0.0/0"), "subnets[0].cidr", "holds 0.0.0.0/8, which means this host"),
    (with_subnet(cidr="224.0.0.0/24"), "subnets[0].cidr", "is multicast"),
    (with_subnet(cidr="fe80::/64"), "subnets[0].cidr", "is link-local"),
    (with_subnet(cidr="::/0"), "subnets[0].cidr", "is loopback"),
    (net(subnets=(V4, V6, Subnet("10.1.0.128/25"))), "subnets[2].cidr", "10.1.0.128/25 overlaps 10.1.0.0/24 of subnets[0]"),
    (with_subnet(gateway="10.1.1.1"), "subnets[0].gateway", "10.1.1.1 is not in 10.1.0.0/24"),
    (with_subnet(gateway="2001:db8::1"), "subnets[0].gateway", "is not in 10.1.0.0/24"),
    (with_subnet(gateway="10.1.0.0"), "subnets[0].gateway", "is the network's own address"),
    (with_subnet(gateway="10.1.0.255"), "subnets[0].gateway", "is the broadcast address"),
    (with_subnet(gateway="10.1.0.1/24"), "subnets[0].gateway", "has a prefix length; write the address alone: 10.1.0.1"),
    (with_subnet(cidr="2001:db8::/64", gateway="2001:db8::"), "subnets[0].gateway", "is the subnet-router anycast address"),
    (with_subnet(gateway="x"), "subnets[0].gateway", "'x' is no IPv4 or IPv6 address"),
    (with_pools(("10.1.0.9", "")), "subnets[0].pools[0].end", "is missing"),
    (with_pools(("", "10.1.0.9")), "subnets[0].pools[0].start", "is missing"),
    (with_pools(("10.1.0.9", "10.1.0.8")), "subnets[0].pools[0].end", "10.1.0.8 is below the start 10.1.0.9; exchange them"),
    (with_pools(("10.1.0.9", "10.1.1.8")), "subnets[0].pools[0].end", "10.1.1.8 is not in 10.1.0.0/24"),
    (with_pools(("2001:db8::1", "10.1.0.9")), "subnets[0].pools[0].start", "is not in 10.1.0.0/24"),
    (with_pools(("10.1.0.20", "10.1.0.30"), ("10.1.0.2", "10.1.0.20")), "subnets[0].pools[1]", "overlaps pools[0]"),
    (
        with_pools(("10.1.0.1", "10.1.0.9"), gateway="10.1.0.5"),
        "subnets[0].pools[0]",
        "holds the gateway 10.1.0.5; make it two pools",
    ),
    (with_subnet(exclude=("10.1.0.9", "10.2.0.0/24")), "subnets[0].exclude[1]", "10.2.0.0/24 is not in 10.1.0.0/24"),
    (with_subnet(exclude=("10.0.0.0/8",)), "subnets[0].exclude[0]", "10.0.0.0/8 is not in 10.1.0.0/24"),
    (with_subnet(exclude=("10.1.0.51/31",)), "subnets[0].exclude[0]", "has host bits set; write 10.1.0.50/31"),
    (with_subnet(exclude=("10.1.0.1-10.1.0.9",)), "subnets[0].exclude[0]", "is no IPv4 or IPv6 address"),
    (with_subnet(exclude=("2001:db8::/65",)), "subnets[0].exclude[0]", "is not in 10.1.0.0/24"),
    (net(subnets=tuple(Subnet(f"10.{index}.0.0/24") for index in range(33))), "subnets", "33 entries are too many; at most 32"),
    # routes
    (net(routes=(Route(""),)), "routes[0].destination", "is missing"),
    (net(routes=(Route("10.9.0.1/16"),)), "routes[0].destination", "has host bits set; write 10.9.0.0/16"),
    (net(routes=(Route("10.9.0.0/16", "2001:db8:1::1"),)), "routes[0].gateway", "is not of the family of 10.9.0.0/16"),
    (net(routes=(Route("10.9.0.0/16", "10.7.0.1"),)), "routes[0].gateway", "is in none of the network's subnets"),
    (net(routes=(Route("10.9.0.0/16"),), subnets=(V6,)), "routes[0].gateway", "no IPv4 subnet here has a gateway"),
    (net(routes=(Route("10.9.0.0/16"), Route("10.9.0.0/16"))), "routes[1].destination", "is that of routes[0]"),
    (net(routes=(Route("10.9.0.0/16", mtu=1),)), "routes[0].mtu", "1 is no MTU"),
    # name resolution
    (net(dns=Dns(nameservers=("dns.x",))), "dns.nameservers[0]", "'dns.x' is no IPv4 or IPv6 address"),
    (net(dns=Dns(domain="a b")), "dns.domain", "'a b' is no domain"),
    (net(dns=Dns(search=("ok", ""))), "dns.search[1]", "is no domain"),
    (net(dns=Dns(options=("a b",))), "dns.options[0]", "is no option of resolv.conf"),
    # provider
    (net(physical_network="a b"), "physicalNetwork", "'a b' names no physical network"),
    (net(type=NetworkType.VLAN), "physicalNetwork", "a network of type vlan names the device"),
    (net(type=NetworkType.HOST_DEVICE), "physicalNetwork", "a network of type host-device names the device"),
    (net(segmentation_id=7), "segmentationId", "a network of type bridge has none; remove it, or use type vxlan, vlan, sriov"),
    (net(type=NetworkType.VXLAN, segmentation_id=2**24), "segmentationId", "is no VNI; it must be from 1 to 16777215"),
    (
        net(type=NetworkType.VLAN, physical_network="p", segmentation_id=4095),
        "segmentationId",
        "is no VLAN id; it must be from 1 to 4094",
    ),
    (
        net(type=NetworkType.VLAN, physical_network="p", segmentation_id=9, vlan_transparent=True),
        "vlanTransparent",
        "excludes a VLAN id",
    ),
    (net(masquerade=True, external_gateway=True), "masquerade", "the gateway is outside"),
    (
        net(masquerade=True, type=NetworkType.MACVLAN, physical_network="p"),
        "masquerade",
        "interfaces of type macvlan go past the node",
    ),
    # selectors
    (net(usable_by=usable(operator="in")), f"{SELECTOR}.operator", "'in' is no operator; did you mean 'In'?"),
    (net(usable_by=usable(values=())), f"{SELECTOR}.values", "In needs at least one value"),
    (net(usable_by=usable(operator="Exists")), f"{SELECTOR}.values", "Exists takes no values"),
    (net(usable_by=usable(key="a b")), f"{SELECTOR}.key", "'a b' is no label's key"),
    (net(usable_by=usable(key="/a")), f"{SELECTOR}.key", "is no label's key"),
    (net(usable_by=usable(values=("ok", "a b"))), f"{SELECTOR}.values[1]", "'a b' is no label's value"),
    (net(usable_by=Usability(nodes=LabelSelector({"a": "-"}))), "usableBy.nodes.matchLabels.a", "'-' is no label's value"),
]

BAD_OTHERS: list[tuple[Any, Any, str, str]] = [
    (validate_tenant, Tenant("T"), "metadata.name", "'T' is no name"),
    (
        validate_tenant,
        Tenant("t", Quota(networks=1001)),
        "quota.networks",
        "1001 is no quota of networks; it must be from 0 to 1000",
    ),
    (validate_tenant, Tenant("t", Quota(ports=-1)), "quota.ports", "-1 is no quota of ports"),
    (validate_tenant, Tenant("t", Quota(addresses=2**31)), "quota.addresses", "is no quota of addresses"),
    (validate_tenant, Tenant("t", allowed_physical_networks=("a b",)), "allowedPhysicalNetworks[0]", "names no physical network"),
    (validate_tenant, Tenant("t", labels={"a": "b c"}), "metadata.labels.a", "'b c' is no label's value"),
    (validate_ip_group, IPGroup("t", "g", ""), "network", "is empty; name a network"),
    (validate_ip_group, IPGroup("t", "g", "a/b/c"), "network", "'a/b/c' names no network; write 'name' or 'tenant/name'"),
    (validate_ip_group, IPGroup("t", "", "n"), "metadata.name", "is empty"),
    (
        validate_ip_group,
        IPGroup("t", "g", "n", ips=("10.0.0.1",), size=1),
        "size",
        "1 stands beside ips; give the addresses or their number",
    ),
    (validate_ip_group, IPGroup("t", "g", "n", ips=("10.0.0.1", "10.0.0.1")), "ips[1]", "10.0.0.1 is ips[0] again"),
    (validate_ip_group, IPGroup("t", "g", "n", ips=("2001:db8::1", "2001:DB8:0::1")), "ips[1]", "2001:db8::1 is ips[0] again"),
    (validate_ip_group, IPGroup("t", "g", "n", ips=tuple(f"10.0.0.{n}" for n in range(1, 34))), "ips", "33 entries are too many"),
    (validate_ip_group, IPGroup("t", "g", "n", ips=("10.0.0.1/24",)), "ips[0]", "write the address alone: 10.0.0.1"),
    (validate_ip_group, IPGroup("t", "g", "n", size=1025), "size", "it must be from 0 to 1024"),
    (validate_ip_claim, IPClaim("t", "c.d", "n", interface="x" * 16), "interface", "is 16 bytes long"),
    (
        validate_ip_claim,
        IPClaim("t", "c", "n", wanted_addresses=("10.0.0.1", "10.0.0.1/24")),
        "wantedAddresses[1]",
        "is named twice",
    ),
    (validate_ip_claim, IPClaim("t", "c", "n", wanted_addresses=("10.0.0.1/0",)), "wantedAddresses[0]", "a number from 1 to 32"),
    (validate_ip_claim, IPClaim("t", "c", "n", mac="01:00:00:00:00:01"), "mac", "is a multicast MAC"),
    (validate_ip_claim, IPClaim("t", "c", "n", mac="02:00:00:00:00"), "mac", "is no MAC; write six octets"),
    (validate_node, Node("a_b"), "name", "'a_b' is no name"),
    (validate_node, Node("a", underlay_address="127.0.0.1"), "underlayAddress", "is loopback"),
    (validate_node, Node("a", underlay_address="fe80::1%eth0"), "underlayAddress", "has a zone"),
    (validate_node, Node("a", underlay_address="::ffff:10.0.0.1"), "underlayAddress", "is an IPv4 address; write 10.0.0.1"),
]


@pytest.mark.parametrize(("network", "field", "fragment"), BAD_NETWORKS)
def test_a_bad_network_is_refused_with_field_value_and_way_out(network: Network, field: str, fragment: str) -> None:
    refused(validate_network, network, field, fragment)


@pytest.mark.parametrize(("validate", "thing", "field", "fragment"), BAD_OTHERS)
def test_a_bad_object_is_refused_with_field_value_and_way_out(validate: Any, thing: Any, field: str, fragment: str) -> None:
    refused(validate, thing, field, fragment)


def refused(validate: Any, thing: Any, field: str, fragment: str) -> None:
    with pytest.raises(Invalid) as raised:
        validate(thing)
    assert raised.value.metadata["field"] == field
    assert raised.value.message.startswith(f"{field}: ")
    assert fragment in raised.value.message


def test_the_canonical_form_of_a_network() -> None:
    network = validate_network(
        Network(
            "", "control", exported_to=("t3", "t2", "t3"),
            subnets=(
                Subnet("2001:DB8:1:0::/64", "2001:DB8:1::1", (Pool("2001:db8:1::000a", "2001:db8:1::F"),), ("2001:db8:1::B/128",)),
                Subnet("10.1.0.0/24", "10.1.0.1", (Pool("10.1.0.200", "10.1.0.210"), Pool("10.1.0.2", "10.1.0.9")),
                       ("10.1.0.5", "10.1.0.6/31", "10.1.0.5/32")),
            ),
            routes=(Route("10.9.0.0/16"), Route("2001:DB8:9::/48", "FE80::1")),
            dns=Dns(("2001:DB8::53",), "cluster.local.", ("a.b",), ("ndots:2",)),
        )
    )  # fmt: skip
    assert network.tenant == "admin"
    assert network.exported_to == ("t2", "t3")
    assert network.subnets == (
        Subnet("2001:db8:1::/64", "2001:db8:1::1", (Pool("2001:db8:1::a", "2001:db8:1::f"),), ("2001:db8:1::b",)),
        Subnet("10.1.0.0/24", "10.1.0.1", (Pool("10.1.0.200", "10.1.0.210"), Pool("10.1.0.2", "10.1.0.9")),
               ("10.1.0.5", "10.1.0.6/31", "10.1.0.5")),
    )  # fmt: skip
    assert network.routes == (Route("10.9.0.0/16"), Route("2001:db8:9::/48", "fe80::1"))
    assert network.dns is not None
    assert network.dns.nameservers == ("2001:db8::53",)
    assert validate_network(network) == network


@pytest.mark.parametrize(
    "network",
    [
        Network("admin", "default", public=True),
        net(subnets=()),
        net(subnets=(Subnet("10.0.0.0/31", "10.0.0.0"), Subnet("10.0.0.2/32"), Subnet("2001:db8::/127", "2001:db8::"), Subnet("10.8.0.0/13"))),
        net(type=NetworkType.VXLAN, segmentation_id=5000, vlan_transparent=True),
        net(type=NetworkType.VLAN, physical_network="phys0", vlan_transparent=True),
        net(type=NetworkType.VLAN, physical_network="eth1.7:0", segmentation_id=4094),
        net(type=NetworkType.SRIOV, physical_network="p"),
        net(masquerade=True, rest=0.0),
        net(usable_by=Usability(LabelSelector(), LabelSelector({"a": ""}), LabelSelector({"x.org/tier": "db"}))),
    ],
)  # fmt: skip
def test_these_networks_are_fine(network: Network) -> None:
    assert validate_network(network) == network


def test_what_the_manager_sets_passes_through() -> None:
    network = net(id="abc", revision=9, create_time=5, source="crd")
    assert validate_network(network) == network


def test_canonical_groups_and_claims() -> None:
    assert validate_ip_group(IPGroup("t", "g", "admin/n", ips=("2001:DB8::1",))).ips == ("2001:db8::1",)
    claim = validate_ip_claim(IPClaim("", "vm.a", "n", "eth1", ("2001:DB8::1/64", "10.0.0.7"), mac="02-AB-00-00-00-01"))
    assert claim == IPClaim("admin", "vm.a", "n", "eth1", ("2001:db8::1/64", "10.0.0.7"), mac="02:ab:00:00:00:01")


@given(cidr=st.text(max_size=40), gateway=st.text(max_size=20), start=st.text(max_size=20), end=st.text(max_size=20))
def test_any_text_is_fine_or_refused(cidr: str, gateway: str, start: str, end: str) -> None:
    try:
        network = validate_network(Network("t", "n", subnets=(Subnet(cidr, gateway, (Pool(start, end),)),)))
    except Invalid as error:
        said = error.metadata["field"]
    else:
        said = "subnets[0]"
        assert validate_network(network) == network
    assert said.startswith("subnets[0]")


@given(st.ip_addresses(), st.integers(0, 128))
def test_a_suggested_cidr_is_a_cidr(found: Any, length: int) -> None:
    text = f"{found}/{min(length, found.max_prefixlen)}"
    try:
        cidr(text)
    except ValueError as error:
        said = str(error)
    else:
        return
    if "; write " in said:
        suggested = said.rpartition("; write ")[2]
        assert str(cidr(suggested)) == suggested
        assert ip_network(text, strict=False) == ip_network(suggested)
    else:
        assert "is IPv4 in the clothes of IPv6" in said
