"""What the plugin prints and how it ends: results and errors as the specification shapes them, for the version asked for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from knitter_agent.cni.versions import FALLBACK, SUPPORTED
from knitter_common.errors import KnitterError


@dataclass(frozen=True, slots=True)
class Answer:
    """Bytes for standard output and the exit code."""

    stdout: bytes = b""
    exit_code: int = 0


def success(result: Mapping[str, Any] | None = None) -> Answer:
    """`result` is printed; DEL, CHECK, GC and STATUS print nothing."""
    return Answer(b"" if result is None else json.dumps(result, separators=(",", ":")).encode())


def failure(error: KnitterError, version: str = "") -> Answer:
    """CNI specification, "Error": cniVersion, code, msg, details. `version` is the call's, "" when it told no usable one."""
    body = {
        "cniVersion": version if version in SUPPORTED else FALLBACK,
        "code": error.cni_code,
        "msg": error.message,
        "details": f"{error.reason}: {error.way_out}",
    }
    return Answer(json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode(), 1)
