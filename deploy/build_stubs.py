"""Generates the gRPC stubs from protos/ into _output/stubs; the wheel carries them as the package `knitter`.

Run by hatch when a wheel or an editable install is made, and by `./build.sh build` as a script.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface as _Hook
except ImportError:  # run as a script where hatchling is not installed
    _Hook = object


def generate(root: Path) -> None:
    """Writes `_pb2.py`, `_pb2_grpc.py` and their `.pyi` for every file of protos/. Raises CalledProcessError."""
    out = root / "_output" / "stubs"
    out.mkdir(parents=True, exist_ok=True)
    spec = importlib.util.find_spec("google.rpc")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("googleapis-common-protos is not installed: run ./build.sh setup")
    googleapis = Path(next(iter(spec.submodule_search_locations))).parent.parent
    protos = sorted(str(path) for path in (root / "protos").rglob("*.proto"))
    outputs = [f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    import grpc_tools

    include = Path(grpc_tools.__file__).parent / "_proto"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # protoc-gen-mypy is there
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{root / 'protos'}", f"-I{include}", f"-I{googleapis}", *outputs, *protos],
        check=True,
        env={**os.environ, "PATH": path},
        stderr=subprocess.DEVNULL,
    )


class StubsHook(_Hook):
    """Hatch's hook."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        generate(Path(self.root))


if __name__ == "__main__":
    generate(Path(__file__).resolve().parent.parent)
