"""Other plugins that make something of an attachment: found in CNI_PATH and run as the specification says, one after the other.

CNI specification 1.1.0, section 4, "Plugin Delegation": the delegate gets the same environment and a complete configuration; its
failure on ADD is our failure; DEL runs in reverse order.
"""

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from knitter_agent.cni.result import read, written
from knitter_agent.record import Delegation, Key
from knitter_common.errors import Internal, Invalid, KnitterError, Unavailable

log = structlog.get_logger()

_LIMIT = 4 * 1024 * 1024  # of a delegate's output, in bytes


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What of the environment a delegate is told. `netns` is "" where it is gone."""

    key: Key
    netns: str
    args: str
    path: str


@dataclass(frozen=True, slots=True)
class Delegates:
    """`timeout` bounds one run, in seconds."""

    timeout: float = 60.0

    def require(self, chain: Sequence[Delegation], path: str) -> None:
        """Raises Internal(DELEGATE_FAILED) when a plugin of the chain is in none of the directories of `path`."""
        for delegation in chain:
            _find(str(delegation.conf["type"]), path)

    async def add(
        self, chain: Sequence[Delegation], around: Surroundings, prev: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """Runs ADD along the chain; each gets the result of the one before. Returns the last result, in its own version.

        Raises Internal(DELEGATE_FAILED) with the delegate's own code and message; what was made by then, `delete` undoes.
        """
        result = prev
        for delegation in chain:
            output = await self._run("ADD", delegation, around, result)
            result = _object(output, delegation)
        assert result is not None
        return result

    async def delete(self, chain: Sequence[Delegation], around: Surroundings, result: Mapping[str, Any] | None) -> None:
        """Runs DEL along the chain in reverse; all of them, whatever one says. Raises the first error."""
        await self._all("DEL", tuple(reversed(chain)), around, result)

    async def check(self, chain: Sequence[Delegation], around: Surroundings, result: Mapping[str, Any] | None) -> None:
        """Runs CHECK along the chain, in order, for versions that have it."""
        await self._all("CHECK", [one for one in chain if str(one.conf["cniVersion"]) >= "0.4.0"], around, result)

    async def collect_garbage(
        self, chain: Sequence[Delegation], around: Surroundings, valid: Callable[[str], Sequence[Mapping[str, str]]]
    ) -> None:
        """Runs GC along the chain; `valid` lists what is valid of a network of that name."""
        told = [
            Delegation({**one.conf, "cni.dev/valid-attachments": list(valid(str(one.conf["name"])))}, one.interface)
            for one in chain
            if _since_1_1(one)
        ]
        await self._all("GC", told, around, None)

    async def status(self, chain: Sequence[Delegation], around: Surroundings) -> None:
        """Runs STATUS along the chain. Raises Unavailable(CNI_NOT_READY) with the first error: no ADD can be served without it."""
        try:
            await self._all("STATUS", [one for one in chain if _since_1_1(one)], around, None)
        except KnitterError as error:
            raise Unavailable("CNI_NOT_READY", error.message) from error

    async def _all(self, verb: str, chain: Sequence[Delegation], around: Surroundings, result: Mapping[str, Any] | None) -> None:
        first: KnitterError | None = None
        for delegation in chain:
            try:
                await self._run(verb, delegation, around, _readable(result, str(delegation.conf["cniVersion"])))
            except KnitterError as error:
                first = first or error
        if first is not None:
            raise first

    async def _run(self, verb: str, delegation: Delegation, around: Surroundings, prev: Mapping[str, Any] | None) -> bytes:
        kind = str(delegation.conf["type"])
        conf = dict(delegation.conf) if prev is None else {**delegation.conf, "prevResult": prev}
        process = await asyncio.create_subprocess_exec(
            _find(kind, around.path),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(verb, delegation, around),
            limit=_LIMIT,
        )
        try:
            async with asyncio.timeout(self.timeout):
                output, complaint = await process.communicate(json.dumps(conf).encode())
        except TimeoutError as error:
            raise Internal("DELEGATE_FAILED", f"{kind}: {verb} took longer than {self.timeout:g} s", delegate=kind) from error
        finally:
            if process.returncode is None:
                process.kill()
                await asyncio.shield(process.wait())
        if process.returncode != 0:
            raise _failure(kind, verb, process.returncode, output, complaint)
        if complaint:  # the specification has it on the plugin's standard error, which ends here
            log.info("a delegate says", delegate=kind, verb=verb, text=complaint.decode(errors="replace").strip()[-400:])
        return output


def _readable(result: Mapping[str, Any] | None, version: str) -> Mapping[str, Any] | None:
    """The `prevResult` of a verb but ADD, as a delegate of that version reads it; what we cannot read goes as it came."""
    if result is None or version < "0.4.0":
        return None
    try:
        same = result.get("cniVersion") == version
        return result if same else written(read(result, version), version)
    except Invalid:
        return result


def _since_1_1(delegation: Delegation) -> bool:
    return str(delegation.conf["cniVersion"]) >= "1.1.0"


def _find(kind: str, path: str) -> str:
    for directory in filter(None, path.split(":")):
        candidate = f"{directory}/{kind}"
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):  # noqa: PTH113 - Path.is_file raises for a name too long
            return candidate
    raise Internal("DELEGATE_FAILED", f"the plugin {kind!r} is in none of the directories of CNI_PATH {path!r}", delegate=kind)


def _environment(verb: str, delegation: Delegation, around: Surroundings) -> dict[str, str]:
    named = (
        {}
        if verb in ("GC", "STATUS")
        else {
            "CNI_CONTAINERID": around.key.container_id,
            "CNI_NETNS": around.netns,
            "CNI_IFNAME": delegation.interface,
            "CNI_ARGS": around.args,
        }
    )
    return {"PATH": os.environ.get("PATH", os.defpath), "CNI_COMMAND": verb, "CNI_PATH": around.path, **named}


def _object(output: bytes, delegation: Delegation) -> Mapping[str, Any]:
    kind = str(delegation.conf["type"])
    try:
        result = json.loads(output)
    except ValueError as error:
        raise Internal("DELEGATE_FAILED", f"{kind}: its result is not JSON: {error}", delegate=kind) from error
    if not isinstance(result, dict):
        raise Internal("DELEGATE_FAILED", f"{kind}: its result is not an object", delegate=kind)
    result.setdefault("cniVersion", delegation.conf["cniVersion"])
    try:
        read(result, "", "its result")
    except Invalid as error:
        raise Internal("DELEGATE_FAILED", f"{kind}: {error.message}", delegate=kind) from error
    return result


def _failure(kind: str, verb: str, code: int | None, output: bytes, complaint: bytes) -> Internal:
    """The delegate's CNI error, or what it wrote instead."""
    try:
        told = json.loads(output)
        text = f"{told['msg']} (code {told['code']})" + (f": {told['details']}" if told.get("details") else "")
    except (ValueError, KeyError, TypeError):
        text = (complaint or output).decode(errors="replace").strip()[-400:] or f"it ended with {code} and said nothing"
    return Internal("DELEGATE_FAILED", f"{kind}: {verb} failed: {text}", delegate=kind)
