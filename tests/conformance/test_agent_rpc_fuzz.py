"""Whatever the agent's methods are sent, they answer: a result, or a CNI error with a code that a runtime can make something of.
Never a defect, never a gRPC status, never silence; and what failed has left nothing."""

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from harness.agent import METHODS, AgentProcess, SmallManager, agent_in
from harness.messages import any_message
from harness.netns import ip, network_namespace
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from knitter.v1 import agent_pb2, agent_pb2_grpc
from knitter_common.errors import REASONS, Internal, from_rpc_error

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

# What the caller can do something about; CNI 5 and our own above 112 are troubles of the node.
SENSIBLE = {row.cni_code for row in REASONS.values() if row.kind is not Internal} | {REASONS["DELEGATE_FAILED"].cni_code}
ANNOTATIONS = "io.kubernetes.cri.pod-annotations"

PLAIN = some.text(max_size=12) | some.sampled_from(["\0", "x" * 300])
TEXTS = PLAIN | some.just("\ud800")
VALUES: Any = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | TEXTS,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
NETWORKS = some.sampled_from(["a@net1", "t1/a@net1,b@net2", {"ports": [{"attach_to_network": "a"}]}, [{"name": "a"}], ""])
RESULTS = some.sampled_from([
    {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": "/x"}], "ips": [{"address": "10.0.0.2/24", "interface": 0}]},
    {"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.0.0.2/24"}]},
    {},
])  # fmt: skip
RUNTIME = some.fixed_dictionaries(
    {},
    optional={
        ANNOTATIONS: some.dictionaries(some.sampled_from(["networks", "k8s.v1.cni.cncf.io/networks"]), TEXTS | some.just("a@net1")),
        "ips": some.lists(some.sampled_from(["10.0.0.9", "10.0.0.9/24", "x"]), max_size=2),
        "mac": some.sampled_from(["02:00:00:00:00:01", "x"]),
    },
)
DELEGATES = some.sampled_from([{"type": "nowhere"}, {"plugins": [{"type": "nowhere"}]}, {"type": "../x"}])
USUAL = {"cniVersion": "1.1.0", "name": "knitter", "type": "knitter-cni"}
LIKELY: dict[str, Any] = {
    "cniVersion": some.sampled_from(["1.0.0", "0.4.0", "0.3.1", "0.2.0"]),
    "name": some.just("other"),
    "type": some.just("other"),
    "tenant": some.just("t1"),
    "defaultNetwork": some.sampled_from(["admin/default", "t1/missing"]),
    "delegate": DELEGATES,
    "networks": NETWORKS,
    "runtimeConfig": RUNTIME,
    "prevResult": RESULTS,
    "dns": some.just({"nameservers": ["10.0.0.53"], "search": ["a.b"]}),
    "cni.dev/valid-attachments": some.just([]),
    "x": VALUES,
}
KEYS = some.one_of([some.tuples(some.just(key), value | value | VALUES) for key, value in LIKELY.items()])
CONFS = some.lists(KEYS, max_size=3).map(lambda changes: {**USUAL, **dict(changes)})
STDIN = CONFS.map(lambda conf: json.dumps(conf).encode())
NO_JSON = some.binary(max_size=60) | STDIN.map(lambda data: data[:-1])


@contextmanager
def manager_aside() -> Iterator[SmallManager]:
    """A manager in a thread of its own, so that a test need not be asynchronous."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    manager = SmallManager()
    try:
        asyncio.run_coroutine_threadsafe(manager.__aenter__(), loop).result(10)
        yield manager
    finally:
        asyncio.run_coroutine_threadsafe(manager.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Target:
    """The agent with a sandbox and a small manager."""

    def __init__(self, agent: AgentProcess, node: str, sandbox: str) -> None:
        self.agent, self.node, self.sandbox = agent, node, sandbox
        self._channel = grpc.insecure_channel(agent.address, options=[("grpc.use_local_subchannel_pool", 1)])
        self._stub = agent_pb2_grpc.AgentServiceStub(self._channel)

    def call(self, method: str, request: Any) -> Any:
        """The response; a gRPC status is an error of the test."""
        begin = time.monotonic()
        response = getattr(self._stub, method)(request, timeout=10)
        assert time.monotonic() - begin < 5
        return response

    def list(self, request: Any) -> Any:
        """A page of attachments, or the error behind the status."""
        try:
            return self._stub.ListAttachments(request, timeout=10)
        except grpc.RpcError as failed:
            return from_rpc_error(failed)

    def close(self) -> None:
        """Ends the caller."""
        self._channel.close()


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with (
        manager_aside() as manager,
        network_namespace("node") as node,
        network_namespace("pod") as sandbox,
        agent_in(node, manager.address, managerPatience=1) as agent,
    ):
        made = Target(agent, node, sandbox)
        yield made
        until = time.monotonic() + 10
        while made.list(agent_pb2.ListAttachmentsRequest()).attachments and time.monotonic() < until:
            time.sleep(0.02)
        made.close()
        links = [{link["ifname"] for link in ip(netns, "link", "show")} for netns in (node, sandbox)]
        assert links == [{"lo"}, {"lo"}]
        assert not manager.sets.held


def judged(verb: str, answer: agent_pb2.Answer) -> None:
    """Nothing, a result, or an error that is whole."""
    if answer.exit_code == 0:
        assert (verb == "ADD") == bool(answer.stdout)
        return
    error = json.loads(answer.stdout)
    assert answer.exit_code == 1
    assert error["code"] in SENSIBLE, error
    assert error["msg"], error
    assert error["details"], error
    assert error["cniVersion"] in ("0.3.1", "0.4.0", "1.0.0", "1.1.0")


@given(verb=some.sampled_from(["ADD", "ADD", "ADD", *METHODS]), stdin=STDIN | STDIN | STDIN | NO_JSON, data=some.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_any_call_is_answered(target: Target, verb: str, stdin: bytes, data: Any) -> None:
    paths = [target.sandbox, "/nonexistent", "/proc/self/ns/mnt", "/etc/hostname", "/", "relative", "/run\0/x"]
    values = {
        "CNI_COMMAND": some.just(verb) | PLAIN,
        "CNI_CONTAINERID": some.sampled_from(["c1", "c2"]) | PLAIN,
        "CNI_NETNS": some.sampled_from(paths) | PLAIN,
        "CNI_IFNAME": some.sampled_from(["eth0", "eth1"]) | PLAIN,
        "CNI_ARGS": some.sampled_from(["", "K8S_POD_NAMESPACE=t1;K8S_POD_NAME=x", "a"]) | PLAIN,
        "CNI_PATH": some.sampled_from(["", "/nonexistent", ":::"]) | PLAIN,
    }
    encoded = {name: value.map(str.encode) | some.binary(max_size=5) for name, value in values.items()}
    usual = {"CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": target.sandbox, "CNI_IFNAME": "eth0"}
    one = some.one_of([some.tuples(some.just(name), value) for name, value in encoded.items()])
    changed = dict(data.draw(some.lists(one, max_size=2), label="environment"))
    environment = {**{name: value.encode() for name, value in usual.items()}, **changed}
    method, request = METHODS[verb]
    invocation = agent_pb2.Invocation(environment=environment, stdin=stdin, request_id="fuzz")
    answer = target.call(method, request(invocation=invocation)).answer
    judged(verb, answer)
    if verb == "ADD" and answer.exit_code == 0:
        environment["CNI_COMMAND"] = b"DEL"
        ending = agent_pb2.DetachRequest(invocation=agent_pb2.Invocation(environment=environment, stdin=stdin))
        assert target.call("Detach", ending).answer == agent_pb2.Answer()


@given(verb=some.sampled_from(list(METHODS)), data=some.data())
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_any_message_is_answered(target: Target, verb: str, data: Any) -> None:
    method, request = METHODS[verb]
    judged(verb, target.call(method, data.draw(any_message(request))).answer)


@given(any_message(agent_pb2.ListAttachmentsRequest, {"page_token": ["a/b/c", "a/b"]}))
@settings(max_examples=50)
def test_any_page_is_told_or_refused(target: Target, request: Any) -> None:
    answer = target.list(request)
    if isinstance(answer, Exception):
        assert (answer.reason, answer.metadata["field"]) == ("FIELD_INVALID", "page_token")  # type: ignore[attr-defined]
