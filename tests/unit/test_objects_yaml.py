"""Objects as people write them: read, refused with file, line, object and field, and written so that they read the same."""
# ruff: noqa: E501 - the tables read best as rows

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from knitter_common.errors import Invalid
from knitter_common.model import (
    Dns,
    IPClaim,
    IPGroup,
    IPGroupAddress,
    LabelRequirement,
    LabelSelector,
    Network,
    NetworkType,
    ObjectState,
    PodOwner,
    Pool,
    PortAddress,
    Quota,
    Route,
    Subnet,
    Tenant,
    Usability,
)
from knitter_common.objects import dump, load_text, read_text, to_dict

EXAMPLE = """\
apiVersion: knitter.io/v1
kind: Network                       # also Tenant, IPGroup, IPClaim
metadata: {name: control, namespace: t1}
spec:
  type: vxlan                       # bridge, vxlan, macvlan, ipvlan, vlan, host-device, sriov
  public: false
  mtu: 1450
  subnets:
  - {cidr: 10.1.0.0/24, gateway: 10.1.0.1, pools: [{start: 10.1.0.10, end: 10.1.0.200}], exclude: [10.1.0.50/31]}
  - {cidr: "2001:db8:1::/64"}
"""

SELECTOR = LabelSelector({"app": "x"}, (LabelRequirement("tier", "In", ("a", "b")), LabelRequirement("gone", "DoesNotExist")))
FULL: tuple[Any, ...] = (
    Network(
        tenant="admin", name="full", type=NetworkType.HOST_DEVICE, public=True, exported_to=("t2", "t3"), mtu=1400,
        subnets=(Subnet("10.1.0.0/24", "10.1.0.1", (Pool("10.1.0.9", "10.1.0.20", Usability(pods=SELECTOR)),), ("10.1.0.15",)), Subnet("2001:db8::/64")),
        routes=(Route("10.9.0.0/16"), Route("0.0.0.0/0", "10.1.0.7", 5, 1300)), dns=Dns(("10.0.0.53",), "a.b", ("c.d",), ("ndots:2",)),
        physical_network="phys0", vlan_transparent=True, external=True, description="ä line: with #signs", rest=0.25,
        external_gateway=True, usable_by=Usability(namespaces=SELECTOR, nodes=LabelSelector()),
    ),
    Network("t1", "vlan7", type=NetworkType.VLAN, physical_network="p", segmentation_id=7, masquerade=True, rest=90.0),
    Network("t1", "rests-not", rest=0.0),
    Tenant("t1"),
    Tenant("t2", Quota(1, 2, 3), (NetworkType.BRIDGE, NetworkType.HOST_DEVICE), ("phys0",), "yes", labels={"a": "true", "b": "1"}),
    IPGroup("t1", "g", "control", ips=("10.1.0.9", "2001:db8::9")),
    IPGroup("t1", "sized", "t2/control", size=5, pod_selector=LabelSelector()),
    IPClaim("t1", "vm.a", "control", "eth1", ("10.1.0.9/24", "2001:db8::9"), mac="02:00:00:00:00:01"),
)  # fmt: skip


def test_the_documented_example_is_read() -> None:
    assert load_text(EXAMPLE, "x.yaml") == [
        Network(
            "t1", "control", type=NetworkType.VXLAN, mtu=1450,
            subnets=(
                Subnet("10.1.0.0/24", "10.1.0.1", (Pool("10.1.0.10", "10.1.0.200"),), ("10.1.0.50/31",)),
                Subnet("2001:db8:1::/64"),
            ),
        )
    ]  # fmt: skip


def test_what_is_written_reads_the_same() -> None:
    assert load_text(dump(FULL), "x.yaml") == list(FULL)


def test_json_is_yaml_too() -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [to_dict(thing) for thing in FULL]})
    assert load_text(text, "x.json") == list(FULL)


def test_what_the_manager_set_is_told_and_ignored_on_the_way_back() -> None:
    stored = [
        dataclasses.replace(FULL[0], id="abc", revision=7, create_time=1_700_000_000_000_000_000, source="api", state=ObjectState.DELETING),
        dataclasses.replace(FULL[4], revision=8, used=Quota(1, 1, 1), source="crd"),
        dataclasses.replace(FULL[5], revision=9, addresses=(IPGroupAddress("10.1.0.9", PodOwner("t1", "web-0", "u")), IPGroupAddress("10.1.0.10"))),
        dataclasses.replace(FULL[7], revision=10, addresses=(PortAddress("10.1.0.9/24", "10.1.0.1"),)),
    ]  # fmt: skip
    told = to_dict(stored[0])
    assert told["status"] == {
        "id": "abc",
        "state": "DELETING",
        "revision": 7,
        "createTime": "2023-11-14T22:13:20Z",
        "source": "api",
    }
    assert to_dict(stored[2])["status"]["addresses"][0] == {"address": "10.1.0.9", "usedBy": "pod t1/web-0"}
    assert load_text(dump(stored), "x.yaml") == [FULL[0], FULL[4], FULL[5], FULL[7]]


def test_what_an_api_server_adds_is_ignored() -> None:
    text = EXAMPLE.replace(
        "namespace: t1}",
        "namespace: t1, uid: a, resourceVersion: '5', generation: 3, creationTimestamp: 2026-01-01T00:00:00Z, managedFields: [], "
        "finalizers: [x], ownerReferences: [], annotations: {a: b}, labels: {c: d}}",
    )
    assert load_text(text, "x.yaml") == load_text(EXAMPLE, "x.yaml")


def network(spec: str, metadata: str = "{name: n, namespace: t1}") -> str:
    """A network with a spec in flow style."""
    return f"apiVersion: knitter.io/v1\nkind: Network\nmetadata: {metadata}\nspec: {spec}\n"


def other(kind: str, spec: str, metadata: str = "{name: n, namespace: t1}") -> str:
    return f"apiVersion: knitter.io/v1\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n"


def test_several_documents_lists_and_empty_ones() -> None:
    text = "---\n# nothing\n---\n" + network("{}") + "---\n" + other("Tenant", "{}", "{name: t1}") + "---\n...\n"
    assert load_text(text, "x.yaml") == [Network("t1", "n"), Tenant("t1")]
    assert load_text("", "x.yaml") == []
    assert load_text("# only a comment\n", "x.yaml") == []
    assert load_text("apiVersion: v1\nkind: List\nitems: []\n", "x.yaml") == []


def test_no_namespace_is_the_operators() -> None:
    assert load_text(network("{}", "{name: n}"), "x.yaml") == [Network("admin", "n")]


def test_empty_values_are_as_good_as_absent() -> None:
    text = "apiVersion: knitter.io/v1\nkind: Network\nmetadata:\n  name: n\n  namespace:\n  labels:\nspec:\n  dns:\n  mtu: ~\n  subnets: null\nstatus:\n"
    assert load_text(text, "x.yaml") == [Network("admin", "n")]
    assert load_text("apiVersion: knitter.io/v1\nkind: Network\nmetadata: {name: n}\n", "x.yaml") == [Network("admin", "n")]


def test_anchors_and_merges_can_be_used() -> None:
    text = network(
        "{subnets: [&a {cidr: 10.1.0.0/24, gateway: 10.1.0.1}, {<<: *a, cidr: 10.1.1.0/24, gateway: 10.1.1.1}, {<<: [*a], cidr: 10.1.0.0/16}]}"
    )
    with pytest.raises(Invalid, match=r"spec\.subnets\[2\]\.cidr: 10\.1\.0\.0/16 overlaps"):
        load_text(text, "x.yaml")
    fine = network("{subnets: [{cidr: &c 10.1.0.0/24}], routes: [&r {destination: *c, gateway: 10.1.0.9}, {<<: *r, metric: 5}]}")
    (made,) = load_text(fine, "x.yaml")
    assert isinstance(made, Network)
    assert made.routes == (Route("10.1.0.0/24", "10.1.0.9"), Route("10.1.0.0/24", "10.1.0.9", 5))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("250ms", 0.25), ("5m", 300), ("1h30m", 5400), ("1.5s", 1.5), ("0s", 0), ("45", 45), ('"7s"', 7)],
)
def test_spans_of_time(text: str, seconds: float) -> None:
    (made,) = load_text(network(f"{{rest: {text}}}"), "x.yaml")
    assert isinstance(made, Network)
    assert made.rest == seconds


def test_texts_that_yaml_takes_for_numbers() -> None:
    (made,) = load_text(other("IPClaim", "{network: n, mac: 10:20:30:40:50:51}"), "x.yaml")
    assert isinstance(made, IPClaim)
    assert made.mac == "10:20:30:40:50:51"
    (dated,) = load_text(network("{description: 2026-11-23}"), "x.yaml")
    assert isinstance(dated, Network)
    assert dated.description == "2026-11-23"


BAD: list[tuple[str, str, str]] = [
    # the text itself
    ("a: [", "x.yaml: line 2, column 1: not YAML: did not find expected node content", "2"),
    ("a: b: c", "x.yaml: line 1, column 5: not YAML: mapping values are not allowed", "1"),
    ("\tx: 1", "x.yaml: line 1, column 1: not YAML: found character that cannot start any token", "1"),
    ("a: *nowhere", "x.yaml: line 1, column 4: not YAML: found undefined alias", "1"),
    ("a: \x01", "x.yaml: not YAML: ", ""),
    ("%YAML 3.0\n---\na: 1", "x.yaml: line 1, column 1: not YAML: found incompatible YAML document", "1"),
    ("\ud800", "x.yaml: is no UTF-8 text", ""),
    ("[" * 40, "is nested deeper than 32 levels", "1"),
    ("x" * 5_000_000, "x.yaml: 5000000 bytes are too many; at most 4194304", ""),
    ("---\na: 1\n" * 10_001, "has more than 10000 documents", "20001"),
    # the envelope
    ("just text", "x.yaml: line 1: must be an object, not a text 'just text'", "1"),
    ("[]", "x.yaml: line 1: must be an object, not a list", "1"),
    ("{}", "x.yaml: line 1: apiVersion: is missing; write apiVersion: knitter.io/v1", "1"),
    ("apiVersion: v1\nkind: Network\nmetadata: {name: n}", "line 1: apiVersion: 'v1' is not known; write knitter.io/v1", "1"),
    ("apiVersion: knitter.io/v1", "line 1: kind: is missing; write one of Network, Tenant, IPGroup, IPClaim", "1"),
    ("apiVersion: knitter.io/v1\nkind: Networks\nmetadata: {name: n}", "line 2: kind: 'Networks' is none of Network, Tenant, IPGroup, IPClaim; did you mean 'Network'?", "2"),
    ("apiVersion: knitter.io/v1\nkind: Pod\nmetadata: {name: n}", "kind: 'Pod' is none of", "2"),
    ("apiVersion: knitter.io/v1\nkind: Network", "metadata: is missing; write metadata: {name: …}", "1"),
    (network("{}", "{}"), "line 3: metadata.name: is missing; give the object a name", "3"),
    (network("{}", "{name: 7}"), 'line 3: metadata.name: 7 is read as a number; write "7", with the quotes', "3"),
    (network("{}", "{name: no}"), 'metadata.name: no is read as true or false; write "no", with the quotes', "3"),
    (network("{}", "{name: N}"), "Network admin/N: metadata.name: 'N' is no name", "3"),
    (network("{}", "{name: n, namespace: T}"), "metadata.namespace: 'T' is no name", "3"),
    (network("{}", "{nam: n}"), "line 3: metadata: unknown key 'nam'; did you mean 'name'?", "3"),
    (network("{}").replace("spec", "sepc"), "line 4: unknown key 'sepc'; did you mean 'spec'?", "4"),
    (network("[]"), "line 4: Network t1/n: spec: must be an object, not a list", "4"),
    (network("{}") + "spec: {}\n", "line 5: spec: is written twice, first in line 4; remove one", "5"),
    (network("{}") + "---\n" + network("{}"), "document 2, line 6: Network t1/n: is declared in line 1 already; remove one", "6"),
    # fields of a network
    (network("{mut: 1}"), "line 4: Network t1/n: spec: unknown key 'mut'; did you mean 'mtu'?", "4"),
    (network("{exported_to: []}"), "spec: unknown key 'exported_to'; did you mean 'exportedTo'?", "4"),
    (network("{mtu: '1450'}"), "spec.mtu: must be a whole number, not a text '1450'", "4"),
    (network("{mtu: 1450.5}"), "spec.mtu: '1450.5' is no plain whole number", "4"),
    (network("{mtu: 0x5dc}"), "spec.mtu: '0x5dc' is no plain whole number; write it in decimal digits", "4"),
    (network("{mtu: 02734}"), "spec.mtu: '02734' is no plain whole number", "4"),
    (network("{mtu: 1_450}"), "spec.mtu: '1_450' is no plain whole number", "4"),
    (network("{mtu: -1}"), "spec.mtu: -1 is no MTU in bytes; it must be from 68 to 65535", "4"),
    (network("{mtu: [1]}"), "spec.mtu: must be a whole number, not a list", "4"),
    (network("{public: yes}"), "spec.public: yes is no plain truth value; write true or false", "4"),
    (network("{public: 'true'}"), "spec.public: must be true or false, not a text 'true'", "4"),
    (network("{public: 1}"), "spec.public: must be true or false, not a number '1'", "4"),
    (network("{type: Bridge}"), "spec.type: 'Bridge' is none of bridge, vxlan, macvlan, ipvlan, vlan, host-device, sriov; did you mean 'bridge'?", "4"),
    (network("{type: host_device}"), "did you mean 'host-device'?", "4"),
    (network("{type: !custom vxlan}"), "spec.type: has the tag '!custom'; it must be a text, without a tag", "4"),
    (network("{type: !!python/object:os.system {}}"), "has the tag", "4"),
    (network("{subnets: 10.1.0.0/24}"), "spec.subnets: must be a list, not a text '10.1.0.0/24'", "4"),
    (network("{subnets: [10.1.0.0/24]}"), "spec.subnets[0]: must be an object, not a text '10.1.0.0/24'", "4"),
    (network("\n  subnets:\n  - cidr: 10.1.0.0/24\n  - gateway: 10.1.0.1"), "line 7: Network t1/n: spec.subnets[1].cidr: is missing", "7"),
    (network("\n  subnets:\n  - cidr: 10.1.0.9/24"), "line 6: Network t1/n: spec.subnets[0].cidr: '10.1.0.9/24' has host bits set; write 10.1.0.0/24", "6"),
    (network("{subnets: [{cidr: 10.1.0.0/24, pools: [{start: 10.1.0.1, stop: 10.1.0.9}]}]}"), "spec.subnets[0].pools[0]: unknown key 'stop'; known are end, start, usableBy", "4"),
    (network("{subnets: [{cidr: 10.1.0.0/24, pools: [{start: 10.1.0.9, end: 10.1.0.1}]}]}"), "spec.subnets[0].pools[0].end: 10.1.0.1 is below the start", "4"),
    (network("{routes: [{dst: 10.0.0.0/8}]}"), "spec.routes[0]: unknown key 'dst'", "4"),
    (network("{rest: soon}"), "spec.rest: 'soon' is no span of time; write \"30s\"", "4"),
    (network("{rest: -5}"), "spec.rest: -5.0 seconds is no time to rest", "4"),
    (network("{rest: 30 s}"), "spec.rest: '30 s' is no span of time", "4"),
    (network("{rest: true}"), "spec.rest: 'true' is no span of time", "4"),
    (network("{description: [a]}"), "spec.description: must be a text, not a list", "4"),
    (network("{exportedTo: [t2, 5]}"), 'spec.exportedTo[1]: 5 is read as a number; write "5"', "4"),
    (network("{usableBy: {pod: {}}}"), "spec.usableBy: unknown key 'pod'; did you mean 'pods'?", "4"),
    (network("{usableBy: {pods: {matchLabels: {a: true}}}}"), "spec.usableBy.pods.matchLabels.a: true is read as true or false", "4"),
    (network("{usableBy: {pods: {matchExpressions: [{key: a, operator: in, values: [b]}]}}}"), "spec.usableBy.pods.matchExpressions[0].operator: 'in' is no operator; did you mean 'In'?", "4"),
    (network("{? [a, b] : c}"), "spec: a key must be a text", "4"),
    (network("{public: true}"), "Network t1/n: spec.public: only networks of admin are public", "4"),
    (network("&a {<<: *a}"), "merges ('<<') more than 8 objects deep", "4"),
    (network("{<<: 5}"), "must be an object, not a number '5'", "4"),
    # other kinds
    (other("Tenant", "{}"), "metadata.namespace: a Tenant is in no namespace, it is one; remove it", "3"),
    (other("Tenant", "{quota: {network: 5}}", "{name: t}"), "Tenant t: spec.quota: unknown key 'network'; did you mean 'networks'?", "4"),
    (other("Tenant", "{quota: {networks: 5000}}", "{name: t}"), "Tenant t: spec.quota.networks: 5000 is no quota of networks", "4"),
    (other("Tenant", "{allowedTypes: [vxlan, foo]}", "{name: t}"), "spec.allowedTypes[1]: 'foo' is none of bridge", "4"),
    (other("Tenant", "{}", "{name: t, labels: {'a b': c}}"), "metadata.labels: 'a b' is no label's key", "3"),
    (other("IPGroup", "{}"), "IPGroup t1/n: spec.network: is empty; name a network", "4"),
    (other("IPGroup", "{network: n, ips: [10.0.0.1], size: 3}"), "spec.size: 3 stands beside ips", "4"),
    (other("IPGroup", "{network: n, ips: [10.0.0.1/24]}"), "spec.ips[0]: '10.0.0.1/24' has a prefix length; write the address alone", "4"),
    (other("IPClaim", "{network: n, addresses: [10.0.0.1]}"), "spec: unknown key 'addresses'; did you mean 'wantedAddresses'?", "4"),
    (other("IPClaim", "{network: n, mac: 'x'}"), "IPClaim t1/n: spec.mac: 'x' is no MAC", "4"),
    ("apiVersion: v1\nkind: List\nitem: []", "line 3: unknown key 'item'; did you mean 'items'?", "3"),
    ("apiVersion: v1\nkind: List\nitems:\n- {kind: Pod, apiVersion: knitter.io/v1}", "line 4: kind: 'Pod' is none of", "4"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "fragment", "line"), BAD, ids=[fragment for _, fragment, _ in BAD])
def test_bad_yaml_is_refused_with_file_line_field_value_and_way_out(text: str, fragment: str, line: str) -> None:
    with pytest.raises(Invalid) as raised:
        load_text(text, "x.yaml")
    assert fragment in raised.value.message
    assert raised.value.message.startswith("x.yaml: ")
    assert raised.value.metadata["file"] == "x.yaml"
    assert raised.value.metadata.get("line", "") == line or not line
    assert len(raised.value.message) < 400


def test_a_bad_object_does_not_hide_the_good_ones() -> None:
    text = network("{}") + "---\n" + network("{mtu: x}", "{name: m}") + "---\n" + other("Tenant", "{}", "{name: t}")
    loaded = read_text(text, "x.yaml")
    assert loaded.objects == [Network("t1", "n"), Tenant("t")]
    assert [error.message for error in loaded.errors] == [
        "x.yaml: document 2, line 9: Network admin/m: spec.mtu: must be a whole number, not a text 'x'"
    ]


def test_aliases_that_multiply_are_bounded() -> None:
    """The "billion laughs": nine levels of nine aliases each."""
    text = "a: &a {x: y}\n" + "".join(
        f"{name}: &{name} {{{', '.join(f'k{n}: *{before}' for n in range(9))}}}\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(Invalid):
        load_text(text, "x.yaml")
    labels = "&l {" + ", ".join(f"k{n}: v" for n in range(1000)) + "}"
    many = f"- &p {{start: 10.0.0.1, end: 10.0.0.2, usableBy: {{pods: {{matchLabels: {labels}}}}}}}\n" + "    - *p\n" * 999
    with pytest.raises(Invalid, match="has more than 200000 values, aliases counted"):
        load_text(network(f"\n  subnets:\n  - cidr: 10.0.0.0/8\n    pools:\n    {many}"), "x.yaml")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["cidr", "pools", "start", "x", "mtu"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    read_text(text, "x.yaml")


@given(
    st.dictionaries(
        st.sampled_from(["type", "mtu", "subnets", "routes", "dns", "rest", "usableBy", "public", "exportedTo"]), json_values
    )
)
def test_any_spec_is_read_or_refused_with_a_field(spec: dict[str, Any]) -> None:
    text = yaml.safe_dump({"apiVersion": "knitter.io/v1", "kind": "Network", "metadata": {"name": "n"}, "spec": spec})
    loaded = read_text(text, "x.yaml")
    assert len(loaded.objects) + len(loaded.errors) == 1
    for error in loaded.errors:
        assert "file" in error.metadata
    assert load_text(dump(loaded.objects), "again") == loaded.objects


def test_what_the_documents_and_examples_show_is_read() -> None:
    root = Path(__file__).resolve().parents[2]
    blocks = re.findall(r"```yaml\n(.*?)```", (root / "docs" / "objects.md").read_text(encoding="utf-8"), re.DOTALL)
    assert [type(thing).__name__ for thing in load_text(blocks[0], "objects.md")] == ["Network", "Tenant", "IPGroup", "IPClaim"]
    for path in sorted((root / "deploy" / "examples").glob("*.yaml")):
        assert load_text(path.read_text(encoding="utf-8"), path.name)
