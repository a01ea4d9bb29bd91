"""Calls that must be refused: the plugin as a process, the real agent behind it, and a look at all that must not change.

with bench() as place:
    error = await place.refused("ADD", 4, env={"CNI_IFNAME": "a/b"})
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.agent import AgentProcess, agent_in
from harness.netns import ip, network_namespace
from harness.plugin import Plugin
from knitter_agent.cni.versions import SUPPORTED

CONF: dict[str, Any] = {"cniVersion": "1.1.0", "name": "knitter", "type": "knitter-cni"}
NOBODY = "unix:/nonexistent/manager.sock"


class Bench:
    """A node, a sandbox, an agent without a manager: whatever needs one fails with 11, after all that can be judged has been."""

    def __init__(self, agent: AgentProcess, node: str, sandbox: str) -> None:
        self.agent, self.node, self.sandbox = agent, node, sandbox
        self.plugin = Plugin(agent.home)
        self._untouched = self._seen()

    async def call(self, verb: str, conf: Mapping[str, Any] | None = None, stdin: bytes | None = None,
                   env: Mapping[str, str | bytes | None] | None = None) -> Any:  # fmt: skip
        """One call; `conf` changes the configuration (None removes a key), `stdin` replaces it."""
        if stdin is None:
            stdin = json.dumps({key: value for key, value in {**CONF, **(conf or {})}.items() if value is not None}).encode()
        return await self.plugin.call(verb, stdin, {"CNI_NETNS": self.sandbox, **(env or {})})

    async def refused(self, verb: str, code: int, conf: Mapping[str, Any] | None = None, stdin: bytes | None = None,
                      env: Mapping[str, str | bytes | None] | None = None) -> dict[str, Any]:  # fmt: skip
        """A call that must fail with `code`, with a message short enough to read and a way out, and must change nothing."""
        outcome = await self.call(verb, conf, stdin, env)
        error: dict[str, Any] = outcome.error
        assert error["code"] == code, error
        assert len(error["msg"]) < 1000, error
        assert error.get("details"), error
        if stdin is None and (version := {**CONF, **(conf or {})}["cniVersion"]) in SUPPORTED:
            assert error["cniVersion"] == version, error
        assert await self.agent.attachments() == []
        assert self._seen() == self._untouched
        assert self.plugin.queue == []
        return error

    async def passed(self, verb: str, conf: Mapping[str, Any] | None = None, stdin: bytes | None = None,
                     env: Mapping[str, str | bytes | None] | None = None) -> None:  # fmt: skip
        """A call that must succeed without a word."""
        outcome = await self.call(verb, conf, stdin, env)
        assert (outcome.code, outcome.stdout, outcome.stderr) == (0, b"", b""), outcome

    def _seen(self) -> tuple[Any, ...]:
        links = [sorted(link["ifname"] for link in ip(netns, "link", "show")) for netns in (self.node, self.sandbox)]
        return (*links, sorted(path.name for path in Path(self.agent.home / "state").iterdir()))


@contextmanager
def bench() -> Iterator[Bench]:
    """Starts it, and leaves nothing behind."""
    with (
        network_namespace("node") as node,
        network_namespace("pod") as sandbox,
        agent_in(node, NOBODY, managerPatience=0.05) as agent,
    ):
        yield Bench(agent, node, sandbox)
