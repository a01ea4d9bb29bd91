"""What `ipam check` finds and repairs: messages to documents and rows, and the exit code. Pure, but for asking for repairs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from knitter.v1 import manager_pb2 as pb
from knitter_common.errors import KnitterError, from_status
from knitter_ctl.printing import Columns
from knitter_ctl.session import Session
from knitter_ctl.table import Cell

DIFFERENCES, INCOMPLETE = 1, 5  # exit codes
_AT_ONCE = 500  # findings in one request for repair

Told = dict[str, Any]


@dataclass(slots=True)
class Checked:
    """What was compared, what was found, what became of it."""

    findings: list[pb.Finding] = field(default_factory=list)
    summary: pb.CheckSummary = field(default_factory=pb.CheckSummary)
    repaired: list[pb.Repair] = field(default_factory=list)

    @property
    def failed(self) -> list[tuple[str, KnitterError]]:
        """(key, why) of what could not be repaired."""
        return [(one.key, from_status(one.error)) for one in self.repaired if one.HasField("error")]

    @property
    def exit_code(self) -> int:
        """0 when all is equal, or repaired; DIFFERENCES; INCOMPLETE when nothing differs as far as the nodes could be asked."""
        done = sum(one.HasField("done") for one in self.repaired)
        if len(self.findings) > done:
            return DIFFERENCES
        return INCOMPLETE if self.summary.not_asked else 0


async def check(session: Session, nodes: bool) -> Checked:
    """Compares. Raises KnitterError."""
    checked = Checked()
    async for response in session.stream("CheckState", nodes=nodes):
        checked.findings += response.findings
        if response.HasField("summary"):
            checked.summary = response.summary
    checked.findings.sort(key=lambda one: (one.kind, one.network, one.node, one.key))
    return checked


async def repair(session: Session, checked: Checked, force: bool) -> None:
    """Has repaired what can be. Raises KnitterError."""
    wanted = [one for one in checked.findings if one.repairable]
    for begin in range(0, len(wanted), _AT_ONCE):
        response = await session.call("RepairState", findings=wanted[begin : begin + _AT_ONCE], force=force)
        checked.repaired += response.repairs


def kind_of(finding: pb.Finding) -> str:
    """ "not-in-journal"."""
    return pb.FindingKind.Name(finding.kind).removeprefix("FINDING_KIND_").lower().replace("_", "-")


def document(checked: Checked) -> Told:
    """All of it as one object."""
    summary = checked.summary
    told: Told = {
        "findings": [_finding(one) for one in checked.findings],
        "summary": {
            "revision": summary.revision, "networks": summary.networks, "portSets": summary.port_sets,
            "ipClaims": summary.ip_claims, "addresses": summary.addresses, "macs": summary.macs, "counters": summary.counters,
            "nodesAsked": list(summary.asked), "nodesNotAsked": {one.node: one.why for one in summary.not_asked},
        },
    }  # fmt: skip
    if checked.repaired:
        told["repaired"] = {one.key: one.done for one in checked.repaired if one.HasField("done")}
        told["notRepaired"] = {key: f"{error.reason}: {error.message}" for key, error in checked.failed}
    return told


def _finding(one: pb.Finding) -> Told:
    told = {
        "finding": kind_of(one), "network": one.network, "address": one.address, "node": one.node, "message": one.message,
        "key": one.key, "revision": one.revision, "rightful": one.rightful, "repairable": one.repairable,
    }  # fmt: skip
    return {name: value for name, value in told.items() if value or name in ("finding", "message")}


COLUMNS: Columns = {
    "FINDING": lambda it: Cell(kind_of(it), "bad"),
    "NETWORK": lambda it: it.network,
    "ADDRESS": lambda it: it.address,
    "NODE": lambda it: it.node,
    "DETAIL": lambda it: it.message,
}


def sentences(checked: Checked, nodes: bool) -> Iterator[str]:
    """What was compared, and what was not."""
    one = checked.summary
    whole = (
        (one.networks, "networks"), (one.port_sets, "port sets"), (one.ip_claims, "claims"), (one.addresses, "addresses"),
        (one.macs, "MACs"),
    )  # fmt: skip
    yield f"compared at revision {one.revision}: {', '.join(f'{count} {what}' for count, what in whole)}"
    if not one.counters:
        yield "not compared: the manager's counters, since its state never stood still"
    if nodes:
        yield f"journals compared: {_some(one.asked) or 'none'}"
    else:
        yield "not compared: the nodes' journals"
    if one.not_asked:
        yield f"not asked: {_some([f'{each.node} ({each.why})' for each in one.not_asked])}"
    yield "not compared: pods, since there is no source of pods yet"
    count = len(checked.findings)
    repairable = sum(each.repairable for each in checked.findings)
    if not count:
        yield "no difference"
    else:
        yield f"{count} {'difference' if count == 1 else 'differences'}, {repairable} of which can be repaired"


def _some(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
