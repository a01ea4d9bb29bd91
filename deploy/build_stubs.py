"""Generates the gRPC stubs into _output/stubs: protos/ as the package `knitter`, what we use of etcd's as `knitter_etcd`.

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

ROOTS = ("protos", "knitter_manager/store/etcd/protos")


def generate(root: Path) -> None:
    """Writes `_pb2.py`, `_pb2_grpc.py` and their `.pyi` for every file below the roots. Raises CalledProcessError."""
    out = root / "_output" / "stubs"
    out.mkdir(parents=True, exist_ok=True)
    spec = importlib.util.find_spec("google.rpc")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("googleapis-common-protos is not installed: run ./build.sh setup")
    googleapis = Path(next(iter(spec.submodule_search_locations))).parent.parent
    protos = sorted(str(path) for folder in ROOTS for path in (root / folder).rglob("*.proto"))
    outputs = [f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    import grpc_tools

    include = Path(grpc_tools.__file__).parent / "_proto"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # protoc-gen-mypy is there
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *(f"-I{folder}" for folder in (*(root / name for name in ROOTS), include, googleapis)),
            *outputs,
            *protos,
        ],
        check=True,
        env={**os.environ, "PATH": path},
        stderr=subprocess.DEVNULL,
    )


class StubsHook(_Hook):
    """Hatch's hook."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """A wheel carries the stubs; an editable install finds them in _output/stubs, where they are made anew (dev-mode-dirs)."""
        generate(Path(self.root))
        if version != "editable":
            for package in ("knitter", "knitter_etcd"):
                build_data["force_include"][f"_output/stubs/{package}"] = package


if __name__ == "__main__":
    generate(Path(__file__).resolve().parent.parent)
