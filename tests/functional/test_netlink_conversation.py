"""The exchange with the kernel, with pyroute2 and `ip` as independent readers of what our encoder wrote."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from harness.netns import entered, ip, network_namespace

from knitter_agent.netlink import Kernel, sysctl, wire
from knitter_common.errors import Internal, Refused, Unavailable

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with network_namespace("node") as path, entered(path), Kernel() as one:
        yield one


def _index(kernel: Kernel, name: str) -> int:
    (answer,) = kernel.talk.ask(wire.get_link(name))
    return wire.parse_link(answer.body).index


def test_an_answer_belongs_to_its_request(kernel: Kernel) -> None:
    for number in range(40):
        kernel.talk.ask(wire.new_bridge(f"br{number}", f"02:00:00:00:00:{number:02x}"))
    names = [f"br{number}" for number in range(40)]
    answers = kernel.talk.ask(*(wire.get_link(asked) for name in names for asked in (name, f"no{name}")))
    assert [wire.parse_link(answer.body).name for answer in answers[::2]] == names
    assert {(answer.errno, answer.body) for answer in answers[1::2]} == {(errno.ENODEV, b"")}


def test_a_refusal_is_the_first_one_and_the_rest_is_tried(kernel: Kernel) -> None:
    wrong = wire.set_link(4711, "raising link 4711", up=True)
    with pytest.raises(Internal, match="raising link 4711 on the node failed: the kernel says: No such device") as refused:
        kernel.talk.ask(
            wire.new_bridge("br0", "02:00:00:00:00:01"),
            wrong,
            wire.set_link(4712, "raising link 4712", up=True),
            wire.new_bridge("br1", "02:00:00:00:00:02"),
        )
    assert refused.value.metadata == {"step": "raising link 4711", "errno": "ENODEV"}
    assert {"br0", "br1"} <= {link["ifname"] for link in ip(None, "link")}


def test_the_conversation_goes_on_after_a_refusal(kernel: Kernel) -> None:
    for _ in range(3):
        with pytest.raises(Internal):
            kernel.talk.ask(wire.set_link(4711, "raising link 4711", up=True))
        assert kernel.talk.ask(wire.get_link("lo"))[0].body


def test_a_kind_of_link_that_the_kernel_lacks_is_no_defect_of_ours(kernel: Kernel) -> None:
    info = wire.attribute(wire.IFLA_LINKINFO, wire.text(wire.IFLA_INFO_KIND, "nosuchkind"))
    payload = bytes(16) + wire.text(wire.IFLA_IFNAME, "x0") + info
    unknown = wire.Request(wire.RTM_NEWLINK, wire.NLM_F_CREATE | wire.NLM_F_EXCL, payload, "making x0")
    with pytest.raises(Refused, match="this node's kernel cannot do it") as refused:
        kernel.talk.ask(unknown)
    assert refused.value.reason == "DATA_PLANE_UNSUPPORTED"
    assert "Unknown device type" in refused.value.message


def test_a_listing_is_complete_however_long(kernel: Kernel) -> None:
    kernel.talk.ask(wire.new_bridge("br0", "02:00:00:00:00:01"))
    index = _index(kernel, "br0")
    wanted = {f"10.{number // 250}.{number % 250}.1/24" for number in range(1000)}
    kernel.talk.ask(*(wire.new_address(index, cidr, "adding") for cidr in wanted))
    assert {wire.parse_address(body) for body in kernel.talk.dump(wire.dump_addresses(index))} == wanted


def test_listings_hold_what_was_asked_for(kernel: Kernel) -> None:
    for name in ("br0", "br1"):
        kernel.talk.ask(wire.new_bridge(name, "02:00:00:00:00:01"))
        ip(None, "link", "add", f"{name}p", "type", "veth", "peer", "name", f"{name}q")
        ip(None, "link", "set", f"{name}p", "master", name)
        ip(None, "link", "set", name, "up")
    first = _index(kernel, "br0")
    assert [wire.parse_link(body).name for body in kernel.talk.dump(wire.dump_ports(first))] == ["br0p"]
    second = _index(kernel, "br1")
    kernel.talk.ask(wire.new_address(first, "10.1.1.1/24", "adding"), wire.new_address(second, "10.1.2.1/24", "adding"))
    kernel.talk.ask(wire.new_route(first, "10.9.0.0/16", "10.1.1.9", 7, 1300, False, "routing"))
    assert [wire.parse_address(body) for body in kernel.talk.dump(wire.dump_addresses(first))] == ["10.1.1.1/24"]
    routes = [wire.parse_route(body, first) for body in kernel.talk.dump(wire.dump_routes(first, 2))]
    assert set(routes) == {wire.RouteEntry("10.1.1.0/24", "", 0, 0), wire.RouteEntry("10.9.0.0/16", "10.1.1.9", 7, 1300)}


def test_pyroute2_reads_what_we_wrote(kernel: Kernel) -> None:
    from pyroute2 import IPRoute

    with network_namespace("pod") as pod:
        kernel.talk.ask(wire.new_bridge("br0", "02:00:00:00:00:01"))
        bridge = _index(kernel, "br0")
        fd = os.open(pod, os.O_RDONLY)
        try:
            kernel.talk.ask(wire.new_veth("kv0", "02:00:00:00:00:0a", 1400, bridge, "eth0", "02:00:00:00:00:0b", fd))
        finally:
            os.close(fd)
        host = _index(kernel, "kv0")
        kernel.talk.ask(wire.set_link(host, "naming", alias="knitter:x"), wire.no_link_local(host))
        with IPRoute() as reader:
            (found,) = reader.get_links(host)
        assert found.get_attr("IFLA_IFNAME") == "kv0"
        assert found.get_attr("IFLA_MASTER") == bridge
        assert found.get_attr("IFLA_MTU") == 1400
        assert found.get_attr("IFLA_ADDRESS") == "02:00:00:00:00:0a"
        assert found.get_attr("IFLA_IFALIAS") == "knitter:x"
        assert found.get_nested("IFLA_AF_SPEC", "AF_INET6").get_attr("IFLA_INET6_ADDR_GEN_MODE") == 1
        ours = wire.parse_link(kernel.talk.ask(wire.get_link("kv0"))[0].body)
        assert (ours.name, ours.mtu, ours.mac, ours.master, ours.kind, ours.alias, ours.up) == (
            "kv0",
            1400,
            "02:00:00:00:00:0a",
            bridge,
            "veth",
            "knitter:x",
            True,
        )
        assert ours.peer == found.get_attr("IFLA_LINK")


def test_threads_with_conversations_of_their_own_do_not_meet(kernel: Kernel) -> None:
    wrong: list[str] = []

    def talk(name: str) -> None:
        with Kernel() as mine:
            for _ in range(200):
                if wire.parse_link(mine.talk.ask(wire.get_link(name))[0].body).name != name:
                    wrong.append(name)

    kernel.talk.ask(wire.new_bridge("br0", "02:00:00:00:00:01"))
    threads = [threading.Thread(target=talk, args=(name,)) for name in ("lo", "br0")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_unanswered_request_ends_with_the_deadline(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket
    import struct

    kernel.talk._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 50_000))
    monkeypatch.setattr(kernel.talk, "_send", lambda data, step: None)
    with pytest.raises(Unavailable, match="no answer") as late:
        kernel.talk.ask(wire.get_link("lo"))
    assert late.value.reason == "DEADLINE_EXCEEDED"


def test_an_answer_that_came_too_late_is_not_taken_for_another(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = kernel.talk
    with monkeypatch.context() as patched:
        patched.setattr(talk, "_receive", lambda step: (_ for _ in ()).throw(Unavailable("DEADLINE_EXCEEDED", "late")))
        with pytest.raises(Unavailable):
            talk.ask(wire.get_link("lo"), wire.get_link("lo"))
    (answer,) = talk.ask(wire.get_link("nosuch"))
    assert answer.errno == errno.ENODEV


def test_settings(kernel: Kernel) -> None:
    sysctl.ensure("ipv4/conf/lo/forwarding", "1")
    sysctl.ensure("ipv4/conf/lo/forwarding", "1")
    sysctl.ensure("ipv4/conf/nosuch/forwarding", "1", optional=True)
    with pytest.raises(Refused, match="has no such setting"):
        sysctl.ensure("ipv4/conf/nosuch/forwarding", "1")
    with pytest.raises(Internal, match="failed"):
        sysctl.ensure("ipv4/conf/lo/forwarding", "many")


def test_settings_that_cannot_be_written_are_taken_as_they_are() -> None:
    """In a container /proc/sys is mounted read-only: what is right already is no error."""
    program = "import sys; from knitter_agent.netlink import sysctl; sysctl.ensure('ipv4/conf/lo/forwarding', sys.argv[1])"
    locked = 'mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec "$@"'
    outcomes = [
        subprocess.run(
            ["unshare", "--net", "--mount", "sh", "-c", locked, "sh", sys.executable, "-c", program, value],
            capture_output=True,
            text=True,
            check=False,
        )
        for value in ("0", "1")
    ]
    assert outcomes[0].returncode == 0, outcomes[0].stderr
    assert "forwarding: setting it to 1 failed: Read-only file system" in outcomes[1].stderr
