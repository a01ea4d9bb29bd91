"""How figures are taken: alternating in one run, as medians and ratios: the machine is shared, an absolute figure means nothing.

A benchmark script prints a table, or with --json one object: {"name", "rows": [{"what", "ratio", "low", "high", "ours_ms",
"reference_ms", "aim", "note"}]}. `ratio` is the median of the ratios pair by pair, `low` and `high` its quartiles; a row without a
reference has no ratio.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """One figure."""

    what: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    ours_ms: float | None = None
    reference_ms: float | None = None
    aim: float | None = None
    note: str = ""


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` took."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def paired(what: str, pairs: Sequence[tuple[float, float]], aim: float | None = None, note: str = "") -> Row:
    """A row from (ours, reference) seconds taken in turn."""
    ratios = sorted(ours / reference for ours, reference in pairs)
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return Row(
        what, statistics.median(ratios), quartiles[0], quartiles[2],
        statistics.median(ours for ours, _ in pairs) * 1000,
        statistics.median(reference for _, reference in pairs) * 1000,
        aim, note,
    )  # fmt: skip


def rates(what: str, pairs: Sequence[tuple[float, float]], aim: float | None = None, unit: str = "op/s") -> Row:
    """A row from (ours, reference) rates taken in turn; higher is better."""
    row = paired(what, pairs, aim)
    ours, reference = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Row(what, row.ratio, row.low, row.high, aim=aim, note=f"{ours:,.0f} against {reference:,.0f} {unit}; higher is better")


def report(name: str, rows: Sequence[Row], argv: Sequence[str] | None = None) -> None:
    """Prints the rows as the command line asks."""
    parser = argparse.ArgumentParser(name)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments, _ = parser.parse_known_args(argv)
    if arguments.json:
        json.dump({"name": name, "rows": [asdict(row) for row in rows]}, sys.stdout)
        print()
        return
    print(table(name, rows))


def table(name: str, rows: Sequence[Row]) -> str:
    """The rows for people."""
    lines = [f"\n{name}", f"  {'':<44}{'ratio':>8}{'quartiles':>16}{'ours':>12}{'reference':>12}{'aim':>8}"]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        spread = "" if row.low is None or row.high is None else f"{row.low:.2f}..{row.high:.2f}"
        ours = "" if row.ours_ms is None else f"{row.ours_ms:.1f} ms"
        reference = "" if row.reference_ms is None else f"{row.reference_ms:.1f} ms"
        aim = "" if row.aim is None else f"{row.aim:g}"
        lines.append(f"  {row.what:<44}{ratio:>8}{spread:>16}{ours:>12}{reference:>12}{aim:>8}  {row.note}".rstrip())
    return "\n".join(lines)
