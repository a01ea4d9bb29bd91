"""Bad environments, through the plugin and the real agent: code 4, a message that names the variable, and nothing changed."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.verbs import Bench, bench

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


@pytest.fixture(scope="module")
def place() -> Iterator[Bench]:
    with bench() as made:
        yield made


BAD_CONTAINER_IDS = [
    "-a", ".a", "_a", "a/b", "../a", "a b", "a\n", "a;b", "a:b", "a\tb", "ä", "a" * 1025, " ", "a\x01", b"\xff", b"a\xc3",
]  # fmt: skip
BAD_INTERFACES = [
    ".", "..", "a/b", "a:b", "a b", "a\tb", "a\n", "a\x0bb", "sixteen_letters_", "éééééééé", "a\x01", " ", "/", b"\xff", b"eth\xc3",
    "x" * 5000, "a\u2003b",
]  # fmt: skip
BAD_ARGUMENTS = [
    "A", "A=1;B", "=x", "A=1;=2", ";;A", b"\xc3", b"A=\xff",
    "K8S_POD_NAMESPACE=No/Such", "K8S_POD_NAMESPACE=../a", "K8S_POD_NAMESPACE=" + "a" * 64, "K8S_POD_NAMESPACE=-a", "A B",
]  # fmt: skip


def names_value(error: dict[str, Any], value: str | bytes) -> None:
    """The message shows the value, or the part of it that is wrong, cut where it is long; or says what octets it is not made of."""
    said = error["msg"]
    if isinstance(value, bytes):
        assert "UTF-8" in said
        return
    parts = [part.partition("=")[2] or part for part in value.split(";")] if said.startswith("CNI_ARGS") else [value]
    assert any(repr(part)[1:50].rstrip("'") in said for part in parts if part) or "missing" in said or "empty" in said, said


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK"])
@pytest.mark.parametrize("value", BAD_CONTAINER_IDS, ids=repr)
async def test_a_bad_container_id(place: Bench, verb: str, value: str | bytes) -> None:
    error = await place.refused(verb, 4, env={"CNI_CONTAINERID": value})
    assert error["msg"].startswith("CNI_CONTAINERID")
    names_value(error, value)


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK"])
@pytest.mark.parametrize("value", BAD_INTERFACES, ids=lambda value: repr(value)[:30])
async def test_a_bad_interface_name(place: Bench, verb: str, value: str | bytes) -> None:
    error = await place.refused(verb, 4, env={"CNI_IFNAME": value})
    assert error["msg"].startswith("CNI_IFNAME")
    names_value(error, value)


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
@pytest.mark.parametrize("value", BAD_ARGUMENTS, ids=lambda value: repr(value)[:30])
async def test_bad_arguments(place: Bench, verb: str, value: str | bytes) -> None:
    error = await place.refused(verb, 4, env={"CNI_ARGS": value})
    assert error["msg"].startswith("CNI_ARGS")
    names_value(error, value)


@pytest.mark.parametrize("verb", ["DEL", "GC", "STATUS"])
@pytest.mark.parametrize("value", BAD_ARGUMENTS, ids=lambda value: repr(value)[:30])
async def test_a_verb_that_needs_no_arguments_does_not_mind_bad_ones(place: Bench, verb: str, value: str | bytes) -> None:
    await place.passed(verb, {"cni.dev/valid-attachments": []}, env={"CNI_ARGS": value})


NO_NAMESPACES = ["/tmp", "/dev/null", "/proc/self/ns/mnt", "/proc/self/ns/user", "/etc/hostname", "relative", "./x", b"/\xff", "\n"]


@pytest.mark.parametrize("value", [*NO_NAMESPACES, "/" + "x" * 5000, "/" + "x/" * 3000], ids=lambda value: repr(value)[:30])
async def test_what_is_no_network_namespace(place: Bench, value: str | bytes) -> None:
    error = await place.refused("ADD", 4, env={"CNI_NETNS": value})
    assert "CNI_NETNS" in error["msg"]


@pytest.mark.parametrize("value", ["/nonexistent", "/proc/999999999/ns/net", "/run/netns/no-such-name"])
async def test_a_namespace_that_is_not_there_needs_no_cleaning_up(place: Bench, value: str) -> None:
    error = await place.refused("ADD", 3, env={"CNI_NETNS": value})
    assert value in error["msg"]


async def test_the_nodes_own_namespace_is_no_sandbox(place: Bench) -> None:
    for value in (place.node, f"/proc/{place.agent.daemon.pid}/ns/net"):
        error = await place.refused("ADD", 4, env={"CNI_NETNS": value})
        assert "CNI_NETNS" in error["msg"]
        assert "own" in error["msg"]


async def test_a_fifo_and_a_socket_do_not_make_an_add_wait(place: Bench, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for value in (tmp_path / "fifo", place.plugin.socket):
        outcome = await place.call("ADD", env={"CNI_NETNS": str(value), "KNITTER_TIMEOUT": "5"})
        assert outcome.error["code"] in (4, 113)
        assert "CNI_NETNS" in outcome.error["msg"]
        assert outcome.seconds < 3


@pytest.mark.parametrize("value", [None, "", "/nonexistent", *NO_NAMESPACES[:6], "/" + "x" * 5000], ids=lambda v: repr(v)[:30])
async def test_del_needs_no_namespace(place: Bench, value: str | None) -> None:
    await place.passed("DEL", env={"CNI_NETNS": value})


@pytest.mark.parametrize("value", ["A=1", "IgnoreUnknown=1;K8S_POD_NAMESPACE=t1;K8S_POD_NAME=a;", "A=;B=b=c", ";"])
async def test_good_arguments(place: Bench, value: str) -> None:
    await place.passed("DEL", env={"CNI_ARGS": value})


@pytest.mark.parametrize("value", ["a", "0", "a.b_c-D9", "f" * 64])
async def test_good_container_ids(place: Bench, value: str) -> None:
    await place.passed("DEL", env={"CNI_CONTAINERID": value})


@pytest.mark.parametrize("value", ["eth0", "fifteen_letters", "é", "...", "eth0.1", "a@b"])
async def test_good_interface_names(place: Bench, value: str) -> None:
    await place.passed("DEL", env={"CNI_IFNAME": value})


async def test_a_container_that_was_never_added_cannot_be_checked(place: Bench) -> None:
    result = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": place.sandbox}], "ips": []}
    error = await place.refused("CHECK", 3, {"prevResult": result}, env={"CNI_CONTAINERID": "never"})
    assert "never" in error["msg"]


@pytest.mark.parametrize("verb", ["GC", "STATUS"])
async def test_what_gc_and_status_do_not_need_they_do_not_mind(place: Bench, verb: str) -> None:
    nothing = dict.fromkeys(["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS"])
    await place.passed(verb, {"cni.dev/valid-attachments": []}, env=nothing)
