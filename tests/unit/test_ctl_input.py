"""What knitterctl reads: owners, wishes, files, in the order of what needs what; and the codes it ends with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from knitter_common.errors import REASONS, Invalid, KnitterError
from knitter_common.model import IPClaim, IPGroup, NamedOwner, Network, PodOwner, SandboxOwner, Tenant
from knitter_common.objects import Loaded, Object
from knitter_ctl import declared, failure, options, owners, wants

SANDBOX = SandboxOwner("n1", "0123456789abcdef", "knitter", "eth0")


def test_an_owner_is_told_by_exactly_one_option() -> None:
    assert owners.one("t1/db", "", "") == NamedOwner("t1", "db")
    assert owners.one("", "t1/web/u1", "") == PodOwner("t1", "web", "u1")
    assert owners.one("", "", "n1/0123456789abcdef/knitter/eth0") == SANDBOX
    for told in (("", "", ""), ("t1/db", "t1/web/u1", "")):
        with pytest.raises(Invalid, match="exactly one of --owner, --pod and --sandbox"):
            owners.one(*told)


@pytest.mark.parametrize(("kind", "text"), [("named", "db"), ("named", "/db"), ("pod", "t1/web"), ("sandbox", "n1/c/knitter")])
def test_a_bad_owner_names_its_form(kind: str, text: str) -> None:
    with pytest.raises(Invalid, match="write it as"):
        owners.parse(kind, text)


def test_the_path_of_a_socket_is_an_address() -> None:
    assert options.checked_address("/run/knitter/agent.sock", "--agent") == "unix:/run/knitter/agent.sock"
    for address in ("unix:/run/knitter/agent.sock", "127.0.0.1:7470", "[::1]:7470", "manager.example:7470"):
        assert options.checked_address(address, "--agent") == address
    for address in ("", "manager", "manager:0", "manager:65536", "run/agent.sock"):
        with pytest.raises(Invalid, match="write host:port or unix:/path"):
            options.checked_address(address, "--agent")


def test_a_key_becomes_its_owner_again() -> None:
    for owner in (SANDBOX, PodOwner("t1", "web", "u1"), NamedOwner("t1", "db")):
        assert owners.from_key(owner.key) == owner
    assert owners.from_key("pod/t1/web") is None
    assert owners.from_key("web") is None


def test_an_owner_is_recognised_by_its_short_forms() -> None:
    for text in (SANDBOX.key, "sandbox/n1/0123456789ab/knitter/eth0", "n1/0123456789ab/knitter/eth0", "0123"):
        assert owners.matches(SANDBOX, text), text
    assert not owners.matches(SANDBOX, "012")
    assert owners.matches(SandboxOwner("n1", "c2", "knitter", "eth0"), "c2")
    assert owners.matches(PodOwner("t1", "web", "u1"), "t1/web")
    assert owners.matches(PodOwner("t1", "web", "u1"), "web")
    assert not owners.matches(PodOwner("t1", "web", "u1"), "t2/web")


def test_a_wish_has_network_interface_and_addresses() -> None:
    plain = wants.wish("control", 0)
    assert (plain.network, plain.interface, plain.addresses) == ("control", "", ())
    full = wants.wish("t1/media:eth1=10.2.0.9,2001:DB8::9/64", 1)
    assert (full.network, full.interface, full.addresses) == ("t1/media", "eth1", ("10.2.0.9", "2001:db8::9/64"))
    assert full.place == "--network[1]"
    more = wants.wish("control:eth0=10.1.0.9,group:g,mac:02:00:00:00:00:0A,plane:control,plane:media", 0)
    assert (more.addresses, more.ip_group, more.mac, more.roles) == (
        ("10.1.0.9",),
        "g",
        "02:00:00:00:00:0a",
        ("control", "media"),
    )
    assert wants.wish("control=claim:c", 0).ip_claim == "c"


@pytest.mark.parametrize(
    "text",
    [
        "", ":eth0", "control:", "control=", "control=10.1.0.300", "control:eth0=x", "control=group:", "control=group:a,group:b",
        "control=mac:", "control=mac:02", "control=mac:ff:ff:ff:ff:ff:ff", "control=plane:fast", "control=plane:",
    ],
)  # fmt: skip
def test_a_bad_wish_names_place_and_value(text: str) -> None:
    with pytest.raises(Invalid, match=r"--network\[3\]"):
        wants.wish(text, 3)


def parse(text: str, place: str) -> Loaded:
    """A stand-in: one word an object."""
    made: dict[str, Callable[[], Object]] = {
        "network": lambda: Network("t1", "control"),
        "tenant": lambda: Tenant("t1"),
        "group": lambda: IPGroup("t1", "ig0", "control"),
        "claim": lambda: IPClaim("t1", "vm", "control"),
    }
    words = text.split()
    errors: list[KnitterError] = [Invalid("FIELD_INVALID", f"{place}: bad") for word in words if word not in made]
    return Loaded([made[word]() for word in words if word in made], errors)


def read(*names: str, recursive: bool = False, stdin: str = "") -> list[declared.Declared]:
    return declared.read(names, recursive=recursive, parse=parse, stdin=lambda: stdin)


def test_what_is_needed_comes_first_whatever_the_order_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("claim network")
    (tmp_path / "b.yml").write_text("group")
    (tmp_path / "c.json").write_text("tenant")
    (tmp_path / "notes.txt").write_text("bad")
    (tmp_path / ".hidden.yaml").write_text("bad")
    assert [one.kind.name for one in read(str(tmp_path))] == ["Tenant", "Network", "IPGroup", "IPClaim"]


def test_folders_below_are_read_on_request(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.yaml").write_text("tenant")
    with pytest.raises(Invalid, match="-R reads the folders below"):
        read(str(tmp_path))
    assert len(read(str(tmp_path), recursive=True)) == 1


def test_a_dash_is_standard_input() -> None:
    (one,) = read("-", stdin="network")
    assert one.place == "standard input"


def test_every_bad_input_is_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("tenant bad")
    with pytest.raises(declared.Bad) as caught:
        read(str(tmp_path), str(tmp_path / "missing.yaml"))
    files = [Path(error.message.partition(": ")[0]).name for error in caught.value.errors]
    assert files == ["a.yaml", "b.yaml", "missing.yaml"]
    assert failure.exit_code(caught.value) == 2


def test_every_reason_has_an_exit_code() -> None:
    codes = {reason: failure.exit_code(row.kind(reason, "")) for reason, row in REASONS.items()}
    assert codes["FIELD_INVALID"] == 2
    assert codes["NETWORK_NOT_FOUND"] == 3
    assert codes["OBJECT_EXISTS"] == codes["REVISION_STALE"] == codes["OBJECT_IN_USE"] == 4
    assert codes["MANAGER_UNAVAILABLE"] == 5
    assert codes["POOL_EXHAUSTED"] == 6
    assert codes["TENANT_DENIED"] == 7
    assert codes["INTERNAL"] == 1


def error(reason: str) -> KnitterError:
    return REASONS[reason].kind(reason, "message")


def test_several_errors_that_agree_keep_their_code() -> None:
    assert failure.exit_code(failure.Several([error("POOL_EXHAUSTED"), error("QUOTA_EXCEEDED")])) == 6
    assert failure.exit_code(failure.Several([error("POOL_EXHAUSTED"), error("OBJECT_EXISTS")])) == 1


def test_an_error_is_told_with_its_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    failure.tell(error("NETWORK_NOT_FOUND"), "network/t1/control")
    assert capsys.readouterr().err == (
        "error: NETWORK_NOT_FOUND: network/t1/control: message\nway out: make the network, make it public, or correct the name\n"
    )
