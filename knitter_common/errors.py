"""Every error that Knitter tells: one small tree, and one table of reasons.

    KnitterError
    ├── Invalid        INVALID_ARGUMENT     the request is wrong; sending it again cannot help
    ├── NotFound       NOT_FOUND            what it names is not there, or not visible
    ├── Exists         ALREADY_EXISTS       something else has that name
    ├── Stale          ABORTED              the revision shown is not the current one; read again
    ├── Refused        FAILED_PRECONDITION  it would hurt what is in use; the message names who is in the way
    ├── Exhausted      RESOURCE_EXHAUSTED   a pool or a quota is full
    ├── Denied         PERMISSION_DENIED    not this caller's
    ├── Unavailable    UNAVAILABLE          not now; try again later (CNI 11)
    └── Internal       INTERNAL             a defect of ours, or a broken disk

A class carries its gRPC code. Each error names a reason of `REASONS`, which adds the CNI code (CNI specification 1.1.0,
"Error": 1-99 are the specification's, from 100 on ours) and the way out; docs/errors.md shows the same table.
"""

from typing import ClassVar, NamedTuple

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

DOMAIN = "knitter.io"

# A status travels in the trailers, for which gRPC has 8 KiB: its message there twice, as grpc-message and in
# grpc-status-details-bin. In octets, three for each that gRPC has to write as %XX.
_MOST_TEXT = 2000
_MOST_VALUE = 300  # of the metadata


class KnitterError(Exception):
    """An error with a reason of the table. `message` names field, value and way out; `metadata` is for programs."""

    grpc_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL

    def __init__(self, reason: str, message: str, /, **metadata: str | int) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = {key: str(value) for key, value in metadata.items()}

    @property
    def cni_code(self) -> int:
        """The code of the CNI error object."""
        return REASONS[self.reason].cni_code

    @property
    def way_out(self) -> str:
        """What a person can do about it."""
        return REASONS[self.reason].way_out


class Invalid(KnitterError):
    """The request is wrong."""

    grpc_code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(KnitterError):
    """What the request names is not there, or not visible to the caller."""

    grpc_code = grpc.StatusCode.NOT_FOUND


class Exists(KnitterError):
    """Something else has that name."""

    grpc_code = grpc.StatusCode.ALREADY_EXISTS


class Stale(KnitterError):
    """The revision shown is not the current one."""

    grpc_code = grpc.StatusCode.ABORTED


class Refused(KnitterError):
    """It would hurt what is in use."""

    grpc_code = grpc.StatusCode.FAILED_PRECONDITION


class Exhausted(KnitterError):
    """A pool or a quota is full."""

    grpc_code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Denied(KnitterError):
    """Not this caller's."""

    grpc_code = grpc.StatusCode.PERMISSION_DENIED


class Unavailable(KnitterError):
    """Not now."""

    grpc_code = grpc.StatusCode.UNAVAILABLE


class Internal(KnitterError):
    """A defect of ours, or a broken disk."""

    grpc_code = grpc.StatusCode.INTERNAL


class ReasonRow(NamedTuple):
    """One row of the table: the class that tells it, its CNI code, and the way out."""

    kind: type[KnitterError]
    cni_code: int
    way_out: str


REASONS: dict[str, ReasonRow] = {
    # the CNI call itself
    "CNI_VERSION_UNSUPPORTED": ReasonRow(Invalid, 1, "use a cniVersion from 0.3.1 to 1.1.0"),
    "CNI_FIELD_UNSUPPORTED": ReasonRow(Invalid, 2, "remove the field, or declare the capability it needs"),
    "CNI_CONTAINER_UNKNOWN": ReasonRow(NotFound, 3, "make the sandbox before ADD, ADD before CHECK; there is nothing to clean up"),
    "CNI_ENVIRONMENT_INVALID": ReasonRow(Invalid, 4, "the runtime must set the variable as CNI demands"),
    "CNI_IO_FAILURE": ReasonRow(Internal, 5, "look at the agent's log for the file that failed"),
    "CNI_DECODE_FAILURE": ReasonRow(Invalid, 6, "repair the JSON at the place that the message names"),
    "CNI_CONFIG_INVALID": ReasonRow(Invalid, 7, "repair the key that the message names in the CNI configuration"),
    "CNI_INTERFACE_EXISTS": ReasonRow(Exists, 110, "DEL the attachment before adding it again"),
    "CNI_CHECK_FAILED": ReasonRow(Refused, 111, "delete the pod so that it is made anew"),
    "DELEGATE_FAILED": ReasonRow(Internal, 112, "look at the delegate's own message"),
    "WIRING_FAILED": ReasonRow(Internal, 113, "look at the agent's log for the step that the kernel refused"),
    "LINK_FOREIGN": ReasonRow(Refused, 115, "remove or rename the link that the message names; it is not Knitter's"),
    "DATA_PLANE_UNSUPPORTED": ReasonRow(Refused, 114, "use a network type that this node's kernel and agent support"),
    "AGENT_UNAVAILABLE": ReasonRow(Unavailable, 11, "wait; the runtime tries again"),
    "AGENT_BUSY": ReasonRow(Unavailable, 11, "wait; too many calls are under way on this node"),
    "CNI_NOT_READY": ReasonRow(Unavailable, 50, "wait; the message says what the node lacks to serve an ADD"),
    "DEADLINE_EXCEEDED": ReasonRow(Unavailable, 11, "wait; the runtime tries again"),
    # wishes
    "ANNOTATION_INVALID": ReasonRow(Invalid, 120, "repair the annotation at the place that the message names"),
    "WISH_INVALID": ReasonRow(Invalid, 121, "repair the wish at the place that the message names"),
    # objects
    "FIELD_INVALID": ReasonRow(Invalid, 122, "repair the field that the message names"),
    "OBJECT_NOT_FOUND": ReasonRow(NotFound, 123, "make it first, or correct the name"),
    "NETWORK_NOT_FOUND": ReasonRow(NotFound, 124, "make the network, make it public, or correct the name"),
    "OBJECT_EXISTS": ReasonRow(Exists, 125, "choose another name, or update the one that exists"),
    "REVISION_STALE": ReasonRow(Stale, 126, "read the object again and repeat the change"),
    "OBJECT_IN_USE": ReasonRow(Refused, 127, "end what uses it first; the message names it"),
    "SOURCE_FOREIGN": ReasonRow(Refused, 128, "change it at its source, or move it with `knitterctl adopt`"),
    "SOURCE_INCOMPLETE": ReasonRow(Refused, 146, "make the folder and all its files readable, with at least one object in them"),
    "OBJECT_DELETING": ReasonRow(Refused, 129, "wait until it is gone, then make it again"),
    "OBJECT_BUILT_IN": ReasonRow(Refused, 130, "it is part of the system"),
    "SUBNET_OVERLAPS": ReasonRow(Refused, 131, "choose a CIDR that no network of the same segment has"),
    # addresses
    "POOL_EXHAUSTED": ReasonRow(Exhausted, 132, "add a pool or a subnet, or release what is not used"),
    "ADDRESS_TAKEN": ReasonRow(Refused, 133, "choose another address, or release the owner that the message names"),
    "ADDRESS_UNUSABLE": ReasonRow(Invalid, 134, "choose an address that a pool of the network holds"),
    "MAC_TAKEN": ReasonRow(Refused, 135, "choose another MAC, or release the owner that the message names"),
    "QUOTA_EXCEEDED": ReasonRow(Exhausted, 136, "raise the tenant's quota, or release what is not used"),
    "GROUP_EXHAUSTED": ReasonRow(Exhausted, 137, "make the IP group larger, or release what is not used"),
    "NODES_NOT_ASKED": ReasonRow(
        Refused, 155, "have the nodes that the message names connected, forget those that are gone, or force it"
    ),
    "SEGMENT_EXHAUSTED": ReasonRow(Exhausted, 138, "widen the range of segmentation ids, or delete networks"),
    "SEGMENT_TAKEN": ReasonRow(Refused, 139, "choose another segmentation id, or none"),
    "OWNER_HAS_OTHER_WISHES": ReasonRow(Refused, 140, "release the owner's set first, or send the same wishes"),
    "SET_BOUND_ELSEWHERE": ReasonRow(Unavailable, 11, "wait until the other node gives the set back, or forget the node"),
    "LIMIT_EXCEEDED": ReasonRow(Invalid, 141, "ask for less; the message names the limit"),
    "TENANT_DENIED": ReasonRow(Denied, 142, "ask the operator to allow it for the tenant"),
    # the system
    "NOT_WRITER": ReasonRow(Unavailable, 11, "send it to the writer that the metadata names"),
    "NO_WRITER": ReasonRow(Unavailable, 11, "wait; a manager is taking over"),
    "RECOVERING": ReasonRow(Unavailable, 11, "wait until the nodes have told their journals, or end it by hand"),
    "STORE_UNAVAILABLE": ReasonRow(Unavailable, 11, "look after the store, and send it again: it was done once or not at all"),
    "STORE_UNUSABLE": ReasonRow(Refused, 145, "do what the message says; the store was not touched"),
    "LISTEN_FAILED": ReasonRow(Unavailable, 11, "end what serves that address, or choose another"),
    "MANAGER_UNAVAILABLE": ReasonRow(Unavailable, 11, "look after the manager; running pods are not affected"),
    "RESTORING": ReasonRow(Unavailable, 11, "wait until the snapshot is restored"),
    "STORE_FROZEN": ReasonRow(Unavailable, 11, "use the store that the state was moved to, or run `knitterctl store unfreeze`"),
    "STORE_NOT_EMPTY": ReasonRow(Refused, 147, "use an empty store, or restore the snapshot with `knitterctl snapshot restore`"),
    "SNAPSHOT_INVALID": ReasonRow(Invalid, 148, "use another snapshot file; nothing was changed"),
    "SHUTTING_DOWN": ReasonRow(Unavailable, 11, "wait; another or the same one serves soon"),
    "REPLICA_BEHIND": ReasonRow(Unavailable, 11, "ask another replica, or wait"),
    "WATCH_TAKEN_OVER": ReasonRow(Unavailable, 11, "let one agent alone carry the node's name"),
    "WATCH_TOO_SLOW": ReasonRow(Unavailable, 11, "resume the Watch at the last position; look why the node reads so slowly"),
    "NOT_IMPLEMENTED": ReasonRow(Refused, 143, "this release does not do it yet"),
    "INTERNAL": ReasonRow(Internal, 144, "it is a defect: report it with the log lines of the request id"),
}


def to_status(error: KnitterError) -> status_pb2.Status:
    """The error as google.rpc.Status with its ErrorInfo, for an outcome of a stream or for grpc-status-details-bin."""
    metadata = {key: _cut(value, _MOST_VALUE) for key, value in error.metadata.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    detail = any_pb2.Any()
    detail.Pack(info)
    return status_pb2.Status(code=error.grpc_code.value[0], message=_cut(error.message, _MOST_TEXT), details=[detail])


def _cut(text: str, limit: int) -> str:
    """Shortened in the middle: the field is at the beginning, the way out at the end."""
    found, keep = text, len(text)
    while len(found) > limit or sum(1 if " " <= sign <= "~" and sign != "%" else 3 * len(sign.encode()) for sign in found) > limit:
        keep = min(keep * 3 // 4, limit)
        found = f"{text[: keep // 2]} ... {text[len(text) - keep // 2 :]}"
    return found


# Without our ErrorInfo: nobody is there, nobody answers, or a server that ends drops what it did not begin. What is cancelled on
# this side raises CancelledError instead.
_UNANSWERED = frozenset(
    code.value[0] for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
)


def from_status(status: status_pb2.Status) -> KnitterError:
    """The error that `to_status` told. A status without our ErrorInfo becomes Unavailable or Internal by its code."""
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN and info.reason in REASONS:
            return REASONS[info.reason].kind(info.reason, status.message, **dict(info.metadata))
    if status.code in _UNANSWERED:
        return Unavailable("MANAGER_UNAVAILABLE", status.message)
    return Internal("INTERNAL", status.message)


def from_rpc_error(error: grpc.RpcError) -> KnitterError:
    """The error behind a failed call of a client. Works for grpc.aio.AioRpcError."""
    from grpc_status import rpc_status

    status = rpc_status.from_call(error)
    if status is not None:
        return from_status(status)
    assert isinstance(error, grpc.aio.AioRpcError)
    return from_status(status_pb2.Status(code=error.code().value[0], message=error.details() or str(error.code().name)))
