"""Runs every benchmark of this folder, prints the tables and writes all figures to _output/bench.json.

run.py [NAME …]     only the scripts with these names, such as `cni_calls`
"""

import json
import subprocess
import sys
from pathlib import Path

from measure import Row, table

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "_output" / "bench.json"
SCRIPTS = ("plugin_start", "cni_calls", "allocation_stream", "ipam_cost", "ipam_scale", "daemons", "watch_fanout", "handover")


def main(names: list[str]) -> int:
    """Exit code 1 when a benchmark could not run; a figure that misses its aim is told, not failed."""
    results, failed = [], 0
    for name in names or SCRIPTS:
        script = HERE / f"{name}.py"
        if not script.exists():
            print(f"\n{name}: no such benchmark")
            failed = 1
            continue
        ran = subprocess.run([sys.executable, str(script), "--json"], stdout=subprocess.PIPE, text=True, check=False)
        if ran.returncode != 0:
            print(f"\n{name}: failed with exit code {ran.returncode}")
            failed = 1
            continue
        result = json.loads(ran.stdout.splitlines()[-1])
        results.append(result)
        known = dict.fromkeys(Row.__dataclass_fields__)
        print(table(result["name"], [Row(**{k: v for k, v in row.items() if k in known}) for row in result["rows"]]), flush=True)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"\nall figures: {OUT}")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
