"""The CNI plugin: moves the runtime's environment and standard input to the agent, and the agent's answer back.

This one file is all of it. It is installed (deploy/install_plugin.py) as `knitter-cni` and run as `python -IS`; it imports
nothing but built-in modules and `_socket` while all goes well, because importing is what a Python start is made of:
json, socket or re would each double the call's time, grpc would multiply it by ten. docs/cni-plugin.md says what it promises.

It decides nothing that the agent could decide. It speaks just enough HTTP/2 (RFC 9113), HPACK (RFC 7541), gRPC and protobuf for
one unary call of `knitter.v1.AgentService`. `Conversation` is that protocol without any I/O: bytes in, bytes out. What follows
below it are the cases in which there is no answer.

Upgrades: an older agent ignores fields that it does not know, and so does the plugin; neither asks for the other's version.
"""

import _socket
import posix
import sys
from time import monotonic, time_ns

VERSION = b"unknown"  # deploy/install_plugin.py tells it
SOCKET = b"/run/knitter/agent.sock"
STATE = b"/var/lib/knitter/agent"

begun: list[_socket.socket] = globals().get("begun", [])  # connected by the installed file's head, before this was loaded

# The agent's server takes messages of 4 MiB; what is beyond can only be a mistake, and is told as one.
MAX_REQUEST = 4 * 1024 * 1024 - 1024
MAX_ANSWER = 16 * 1024 * 1024

# verb: (RPC, seconds until we give up, the variables that CNI 1.1.0, "Section 2: Execution Protocol", requires)
VERBS: dict[bytes, tuple[bytes, float, tuple[bytes, ...]]] = {
    b"ADD": (b"Attach", 60.0, (b"CNI_CONTAINERID", b"CNI_NETNS", b"CNI_IFNAME")),
    b"DEL": (b"Detach", 30.0, (b"CNI_CONTAINERID", b"CNI_IFNAME")),
    b"CHECK": (b"Check", 60.0, (b"CNI_CONTAINERID", b"CNI_NETNS", b"CNI_IFNAME")),
    b"GC": (b"CollectGarbage", 60.0, (b"CNI_PATH",)),
    b"STATUS": (b"Status", 1.0, ()),
    b"VERSION": (b"", 0.0, ()),
}
SUPPORTED = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
FALLBACK = "1.0.0"  # of an error, where the configuration tells no version of these; every runtime in use knows it

# Codes of the CNI specification's error object.
BAD_ENVIRONMENT, IO_FAILURE, BAD_CONFIGURATION, TRY_AGAIN, NOT_AVAILABLE, INTERNAL = 4, 5, 7, 11, 50, 144


class NoAnswerError(Exception):
    """The agent gave no answer; the text says why. Whether it saw the call is not known."""


class CniError(Exception):
    """Ends the call with an error object. `details` is for people."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code, self.msg, self.details = code, msg, details


# ---- protobuf ---------------------------------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """A base-128 varint."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, value: bytes) -> bytes:
    """A length-delimited field; `number` below 16."""
    return bytes((number << 3 | 2,)) + varint(len(value)) + value


def invocation(environ: dict[bytes, bytes], stdin: bytes, request_id: bytes) -> bytes:
    """The message Invocation. A name that is not ASCII cannot be a CNI variable, and a protobuf text could not hold it."""
    out = b""
    for name, value in environ.items():
        if name.startswith(b"CNI_") and name.isascii():
            out += field(1, field(1, name) + field(2, value))
    return out + field(2, stdin) + field(3, request_id)


def read_varint(data: bytes, place: int) -> tuple[int, int]:
    """The varint at `place` and the place after it. Raises ValueError."""
    value = shift = 0
    while place < len(data) and shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise ValueError("a number does not end")


def fields(data: bytes) -> dict[int, bytes | int]:
    """The last value of each varint or length-delimited field; other kinds are skipped. Raises ValueError."""
    found: dict[int, bytes | int] = {}
    place = 0
    while place < len(data):
        key, place = read_varint(data, place)
        kind = key & 7
        if kind == 0:
            found[key >> 3], place = read_varint(data, place)
        elif kind == 2:
            size, place = read_varint(data, place)
            found[key >> 3] = data[place : place + size]
            place += size
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if place > len(data):
            raise ValueError("a field is cut")
    return found


def read_answer(message: bytes) -> tuple[bytes, int]:
    """Standard output and exit code out of a response. Raises NoAnswerError."""
    try:
        answer = fields(message).get(1)
        if not isinstance(answer, bytes):
            raise ValueError("no field 1")
        inner = fields(answer)
        stdout, code = inner.get(1, b""), inner.get(2, 0)
        if not isinstance(stdout, bytes) or not isinstance(code, int):
            raise ValueError("a field has another type")
    except ValueError as error:
        raise NoAnswerError(f"the agent's message cannot be read: {error}") from error
    return stdout, code if code < 256 else 1


# ---- HTTP/2 -----------------------------------------------------------------------------------------------------------------

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
END_STREAM = ACK = 1
END_HEADERS, PADDED, PRIORITY = 4, 8, 32
MAX_WINDOW = 2**31 - 1
MAX_FRAME = 16384  # what we accept, the protocol's default
MAX_HEADERS = 256 * 1024


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


# No header table (so nothing to remember), no push, and windows so large that we never need to open them again.
OPENING = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + frame(SETTINGS, 0, 0, b"\0\1\0\0\0\0" + b"\0\2\0\0\0\0" + b"\0\4\x7f\xff\xff\xff")
    + frame(WINDOW_UPDATE, 0, 0, (MAX_WINDOW - 65535).to_bytes(4, "big"))
)


def request_headers(rpc: bytes, seconds: float) -> bytes:
    """The header block: indices of HPACK's static table and literals that are not indexed; every text is below 127 octets."""
    path = b"/knitter.v1.AgentService/" + rpc
    timeout = b"%dm" % (seconds * 1000 + 1)
    return (
        b"\x83\x86"  # :method POST, :scheme http
        + b"\x04" + bytes((len(path),)) + path
        + b"\x01\x09localhost"  # :authority
        + b"\x0f\x10\x10application/grpc"  # content-type
        + b"\x0f\x2b\x0bknitter-cni"  # user-agent
        + b"\x00\x02te\x08trailers"
        + b"\x00\x0cgrpc-timeout" + bytes((len(timeout),)) + timeout
    )  # fmt: skip


class Conversation:
    """The client's side of one unary call on a new connection: bytes in, bytes out.

    Send what `begin` and then each `receive` return, until `done`; then `message` is the response. `receive` raises NoAnswerError
    for whatever ends the call otherwise. Nothing a peer sends makes it raise anything else.
    """

    def __init__(self, rpc: bytes, seconds: float, request: bytes) -> None:
        self.done = False
        self.message = b""
        self._headers = request_headers(rpc, seconds)
        self._unsent = memoryview(b"\0" + len(request).to_bytes(4, "big") + request)
        self._window = self._stream_window = self._initial_window = 65535
        self._peer_max_frame = 16384
        self._input = bytearray()
        self._body = bytearray()
        self._block: bytearray | None = None  # a header block that is not complete
        self._block_ends_stream = False
        self._blocks: list[bytes] = []
        self._settled = False

    def begin(self) -> bytes:
        """The first bytes: a client need not wait for the server's settings (RFC 9113, 3.4)."""
        return OPENING + frame(HEADERS, END_HEADERS, 1, self._headers) + self._data_frames()

    def receive(self, data: bytes) -> bytes:
        """Takes what came, and returns what is to be sent. Raises NoAnswerError."""
        inbox = self._input
        inbox += data
        out = b""
        place = 0
        while not self.done and len(inbox) - place >= 9:
            size = int.from_bytes(inbox[place : place + 3], "big")
            if not self._settled and inbox[place + 3] != SETTINGS:
                raise NoAnswerError("the peer does not speak HTTP/2")
            if size > MAX_FRAME:
                raise NoAnswerError(f"the peer sent a frame of {size} octets, beyond what we take")
            if len(inbox) - place < 9 + size:
                break
            payload = bytes(inbox[place + 9 : place + 9 + size])
            stream = int.from_bytes(inbox[place + 5 : place + 9], "big") & MAX_WINDOW
            out += self._frame(inbox[place + 3], inbox[place + 4], stream, payload)
            place += 9 + size
        del inbox[:place]
        return out

    def closed(self) -> NoAnswerError:
        """What it means that the peer closed the connection now."""
        if not self._settled:
            return NoAnswerError("the agent closed the connection before it served it")
        return NoAnswerError("the agent closed the connection before it answered" + self._status())

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        if (self._block is not None) != (kind == CONTINUATION):
            raise NoAnswerError("the peer broke HTTP/2's order of header frames")
        if kind in (DATA, HEADERS, CONTINUATION, RST_STREAM) and stream != 1:
            raise NoAnswerError(f"the peer sent a frame on stream {stream}, which we did not open")
        if kind in (SETTINGS, PING, GOAWAY) and stream != 0:
            raise NoAnswerError(f"the peer sent a connection's frame on stream {stream}")
        if kind == DATA:
            self._take_data(flags, payload)
        elif kind in (HEADERS, CONTINUATION):
            self._take_headers(kind, flags, payload)
        elif kind == SETTINGS:
            return self._take_settings(flags, payload)
        elif kind == WINDOW_UPDATE:
            return self._take_window(stream, payload)
        elif kind == PING:
            if len(payload) != 8:
                raise NoAnswerError("the peer sent a PING of a wrong size")
            return b"" if flags & ACK else frame(PING, ACK, 0, payload)
        elif kind == RST_STREAM:
            code = int.from_bytes(payload[:4], "big")
            raise NoAnswerError(f"the agent reset the call (HTTP/2 error {code}){self._status()}")
        elif kind == GOAWAY:
            last = int.from_bytes(payload[:4], "big") & MAX_WINDOW
            if last < 1:
                text = payload[8:200].decode("ascii", "replace")
                raise NoAnswerError(f"the agent is going away {text}".strip())
        elif kind == PUSH_PROMISE:
            raise NoAnswerError("the peer pushed, which we forbade")
        return b""

    def _take_data(self, flags: int, payload: bytes) -> None:
        if not self._blocks:
            raise NoAnswerError("the peer sent data before headers")
        self._body += unpadded(flags, payload)
        if len(self._body) > MAX_ANSWER:
            raise NoAnswerError(f"the agent's answer is larger than {MAX_ANSWER} octets")
        if flags & END_STREAM:
            self._end()

    def _take_headers(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == HEADERS:
            self._block = bytearray()
            self._block_ends_stream = bool(flags & END_STREAM)
            payload = unpadded(flags, payload)
            if flags & PRIORITY:
                payload = payload[5:]
        assert self._block is not None
        self._block += payload
        if len(self._block) > MAX_HEADERS or len(self._blocks) > 16:
            raise NoAnswerError("the agent's headers are too large")
        if flags & END_HEADERS:
            self._blocks.append(bytes(self._block))
            self._block = None
            if self._block_ends_stream:
                self._end()

    def _take_settings(self, flags: int, payload: bytes) -> bytes:
        self._settled = True
        if flags & ACK:
            return b""
        if len(payload) % 6:
            raise NoAnswerError("the peer sent SETTINGS of a wrong size")
        for place in range(0, len(payload), 6):
            name = int.from_bytes(payload[place : place + 2], "big")
            value = int.from_bytes(payload[place + 2 : place + 6], "big")
            if name == 4:
                if value > MAX_WINDOW:
                    raise NoAnswerError("the peer's initial window is too large")
                self._stream_window += value - self._initial_window  # it may become negative (RFC 9113, 6.9.2)
                self._initial_window = value
            elif name == 5:
                if not 16384 <= value <= 2**24 - 1:
                    raise NoAnswerError("the peer's largest frame size is not allowed")
                self._peer_max_frame = value
        return frame(SETTINGS, ACK, 0, b"") + self._data_frames()

    def _take_window(self, stream: int, payload: bytes) -> bytes:
        more = int.from_bytes(payload, "big") & MAX_WINDOW
        if len(payload) != 4 or more == 0:
            raise NoAnswerError("the peer sent a WINDOW_UPDATE of nothing")
        if stream == 0:
            self._window += more
        elif stream == 1:
            self._stream_window += more
        if max(self._window, self._stream_window) > MAX_WINDOW:
            raise NoAnswerError("the peer opened a window too far")
        return self._data_frames()

    def _data_frames(self) -> bytes:
        """As much of the request as frame size and both windows allow."""
        out = b""
        while self._unsent:
            size = min(len(self._unsent), self._window, self._stream_window, self._peer_max_frame)
            if size <= 0:
                break
            last = size == len(self._unsent)
            out += frame(DATA, END_STREAM if last else 0, 1, bytes(self._unsent[:size]))
            self._unsent = self._unsent[size:]
            self._window -= size
            self._stream_window -= size
        return out

    def _end(self) -> None:
        """The stream has ended: a complete message is the answer, whatever else was said."""
        body = self._body
        if len(body) < 5 or body[0] != 0 or len(body) != 5 + int.from_bytes(body[1:5], "big"):
            raise NoAnswerError("the agent ended the call without an answer" + self._status())
        self.message = bytes(body[5:])
        self.done = True

    def _status(self) -> str:
        """What the headers say of the reason."""
        told: dict[bytes, bytes] = {}
        for block in self._blocks:
            read_headers(block, told)
        words = [f"{name.decode()} {percent_decoded(told[name])}" for name in STATUS_HEADERS if name in told]
        return f" ({', '.join(words)})" if words else ""


def unpadded(flags: int, payload: bytes) -> bytes:
    """A payload without its padding. Raises NoAnswerError."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise NoAnswerError("the peer sent more padding than frame")
    return payload[1 : len(payload) - payload[0]]


STATUS_HEADERS = (b":status", b"grpc-status", b"grpc-message")
# The entries of HPACK's static table that can matter here (RFC 7541, appendix A).
STATIC_STATUS = {8: b"200", 9: b"204", 10: b"206", 11: b"304", 12: b"400", 13: b"404", 14: b"500"}


def read_headers(block: bytes, told: dict[bytes, bytes]) -> None:
    """Adds the headers of a block to `told`, for people to read: Huffman-coded texts are left out, a broken block ends early."""
    place = 0
    try:
        while place < len(block):
            first = block[place]
            if first & 0xE0 == 0x20:  # a change of the table's size
                _, place = read_integer(block, place, 5)
                continue
            if first & 0x80:
                index, place = read_integer(block, place, 7)
                if index in STATIC_STATUS:
                    told[b":status"] = STATIC_STATUS[index]
                continue
            index, place = read_integer(block, place, 6 if first & 0x40 else 4)
            name: bytes | None = b":status" if 8 <= index <= 14 else b"?"
            if index == 0:
                name, place = read_text(block, place)
            value, place = read_text(block, place)
            if name is not None and value is not None:
                told[name] = value
    except IndexError:
        return


def read_integer(block: bytes, place: int, bits: int) -> tuple[int, int]:
    """An integer with a prefix of `bits` (RFC 7541, 5.1). Raises IndexError."""
    value = block[place] & (1 << bits) - 1
    place += 1
    if value < (1 << bits) - 1:
        return value, place
    for shift in range(0, 35, 7):
        byte = block[place]
        place += 1
        value += (byte & 127) << shift
        if byte < 128:
            return value, place
    raise IndexError


def read_text(block: bytes, place: int) -> tuple[bytes | None, int]:
    """A string literal, None if it is Huffman-coded (RFC 7541, 5.2). Raises IndexError."""
    coded = block[place] & 0x80
    size, place = read_integer(block, place, 7)
    if place + size > len(block):
        raise IndexError
    return None if coded else block[place : place + size], place + size


def percent_decoded(value: bytes) -> str:
    """grpc-message as gRPC writes it; what is not so written stays as it is."""
    head, *rest = value.split(b"%")
    for part in rest:
        try:
            head += bytes((int(part[:2], 16),)) + part[2:]
        except ValueError:
            head += b"%" + part
    return head.decode("utf-8", "replace")


# ---- the call ---------------------------------------------------------------------------------------------------------------


def call(path: bytes, rpc: bytes, request: bytes, deadline: float) -> tuple[bytes, int]:
    """One call of the agent, until `deadline` (monotonic). Returns standard output and exit code. Raises NoAnswerError.

    It is never sent twice: an ADD that was perhaps begun is the runtime's to undo.
    """
    seconds = max(deadline - monotonic(), 0.001)
    conversation = Conversation(rpc, seconds, request)
    sock = begun.pop() if begun else None
    try:
        if sock is None:
            sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
            # A full backlog makes a non-blocking connect fail at once: this one blocks, and the kernel watches the time.
            span = int(seconds), max(int(seconds % 1 * 1_000_000), 1)
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, b"".join(part.to_bytes(8, sys.byteorder) for part in span))
            sock.connect(path)
        return read_answer(converse(sock, conversation, deadline))
    except OSError as error:
        raise NoAnswerError(f"{path.decode('utf-8', 'replace')}: {error.strerror or error}") from error
    finally:
        if sock is not None:
            sock.close()


def converse(sock: _socket.socket, conversation: Conversation, deadline: float) -> bytes:
    """Sends and receives until the answer is there; returns the message. Raises NoAnswerError, OSError for a broken connection."""
    outgoing = conversation.begin()
    while True:
        sock.settimeout(max(deadline - monotonic(), 0.000_001))
        try:
            if outgoing:
                sock.sendall(outgoing)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the peer has closed; what it said before can still be read
        except TimeoutError:
            raise NoAnswerError("the agent took nothing for too long") from None
        try:
            data = sock.recv(65536)
        except TimeoutError:
            raise NoAnswerError("the agent did not answer in time") from None
        except ConnectionResetError:
            data = b""  # closed while something of ours was unread
        if not data:
            raise conversation.closed()
        outgoing = conversation.receive(data)
        if conversation.done:
            return conversation.message


def run(environ: dict[bytes, bytes], stdin: bytes) -> tuple[bytes, int]:
    """One call of the plugin: what to print, and the exit code."""
    try:
        command = environ.get(b"CNI_COMMAND", b"")
        if command == b"VERSION":
            return version(stdin)
        rpc, seconds, required = VERBS.get(command) or unknown_command(command)
        missing = [name.decode() for name in required if not environ.get(name)]
        if missing:
            raise CniError(BAD_ENVIRONMENT, f"{' and '.join(missing)} must be set for {command.decode()}")
        if environ.get(b"KNITTER_TIMEOUT"):
            seconds = wanted_seconds(environ[b"KNITTER_TIMEOUT"])
        request_id = posix.urandom(8).hex().encode()
        message = invocation(environ, stdin, request_id)
        if len(message) > MAX_REQUEST:
            raise CniError(BAD_CONFIGURATION, f"configuration and environment are larger than {MAX_REQUEST} octets")
        path = (environ.get(b"KNITTER_SOCKET") or SOCKET).removeprefix(b"unix:")
        deadline = monotonic() + seconds
        try:
            return call(path, rpc, field(1, message), deadline)
        except NoAnswerError as error:
            why = f"{error}; is knitter-agent running on this node? (request {request_id.decode()})"
            if command == b"DEL":
                return keep_detach(environ, path, message, request_id, deadline, why)
            if command == b"STATUS":
                return status_without_agent(path, why)
            raise CniError(TRY_AGAIN, "Knitter's agent gave no answer; try again later", why) from error
    except CniError as error:
        return error_object(error, stdin), 1


def main() -> None:
    """The process: standard input and environment in, standard output and exit code out. Does not return."""
    stdin = b""
    try:
        if "--version" in sys.argv[1:]:
            write_all(1, b"knitter-cni " + VERSION + b"\n")
            posix._exit(0)
        stdin = read_stdin()
        stdout, code = run(posix.environ, stdin)
    except KeyboardInterrupt:
        posix._exit(130)
    except Exception as error:  # noqa: BLE001 a defect, told in the form that a runtime can show
        stdout, code = error_object(CniError(INTERNAL, f"knitter-cni failed: {type(error).__name__}: {error}"), stdin), 1
    try:
        write_all(1, stdout)
    except OSError as error:
        say(f"knitter-cni: the answer cannot be written: {error.strerror}\n")
        if code == 0 and posix.environ.get(b"CNI_COMMAND") == b"ADD":
            undo(posix.environ, stdin)
        code = code or 1
    posix._exit(code)  # no tidying up of an interpreter that ends anyway: it would cost as much as the call


def undo(environ: dict[bytes, bytes], stdin: bytes) -> None:
    """Deletes what was added and nobody can be told of: the runtime died meanwhile, and may never ask for it.

    One that lives sees this ADD fail, and its own DEL finds nothing to do.
    """
    stdout, code = run({**environ, b"CNI_COMMAND": b"DEL"}, stdin)
    if code:
        say(f"knitter-cni: and the ADD cannot be undone: {stdout.decode('utf-8', 'replace')}\n")


def read_stdin() -> bytes:
    """Standard input until its end, or until it is too much. A terminal and a closed descriptor are taken as empty."""
    chunks = []
    size = 0
    try:
        if posix.isatty(0):
            return b""
        while size <= MAX_REQUEST:
            chunk = posix.read(0, 65536)
            if not chunk:
                break
            chunks.append(chunk)
            size += len(chunk)
    except OSError:
        pass  # the agent judges what there is
    return b"".join(chunks)


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all of it. Raises OSError."""
    while data:
        data = data[posix.write(descriptor, data) :]


def say(text: str) -> None:
    """One line for whoever reads standard error; no one need."""
    try:
        posix.write(2, text.encode("utf-8", "replace"))
    except OSError:
        return


# ---- without an answer ------------------------------------------------------------------------------------------------------


def unknown_command(command: bytes) -> tuple[bytes, float, tuple[bytes, ...]]:
    """Raises the error for a CNI_COMMAND that is none."""
    known = ", ".join(name.decode() for name in VERBS)
    if not command:
        raise CniError(BAD_ENVIRONMENT, "CNI_COMMAND must be set", f"this is a CNI plugin; CNI_COMMAND is one of {known}")
    raise CniError(BAD_ENVIRONMENT, f"CNI_COMMAND: {shown(command)} is none of {known}")


def wanted_seconds(text: bytes) -> float:
    """KNITTER_TIMEOUT as a number. Raises CniError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.001 <= seconds <= 3600:
        raise CniError(BAD_ENVIRONMENT, f"KNITTER_TIMEOUT: {shown(text)} is not a number of seconds from 0.001 to 3600")
    return seconds


def shown(value: bytes) -> str:
    """A value from outside, short enough to read."""
    return repr(value[:80].decode("utf-8", "replace"))


def version(stdin: bytes) -> tuple[bytes, int]:
    """VERSION: what this plugin and every agent it may talk to can do; the agent is not asked."""
    import json

    answer = {"cniVersion": told_version(stdin) or SUPPORTED[-1], "supportedVersions": SUPPORTED}
    return json.dumps(answer).encode() + b"\n", 0


def error_object(error: CniError, stdin: bytes) -> bytes:
    """The CNI specification's error object."""
    import json

    told = told_version(stdin)
    answer = {"cniVersion": told if told in SUPPORTED else FALLBACK, "code": error.code, "msg": error.msg}
    if error.details:
        answer["details"] = error.details
    return json.dumps(answer).encode() + b"\n"


def told_version(stdin: bytes) -> str:
    """The configuration's cniVersion; empty if it does not tell one."""
    import json

    try:
        configuration = json.loads(stdin)
    except (ValueError, RecursionError):
        configuration = None  # the agent tells the runtime what is wrong with it
    told = configuration.get("cniVersion") if isinstance(configuration, dict) else None
    return told if isinstance(told, str) else ""


def boot_id() -> bytes:
    """Which boot of the machine this is; empty if the kernel does not tell."""
    return read_file(b"/proc/sys/kernel/random/boot_id").strip()


def read_file(path: bytes) -> bytes:
    """The first 4 KiB of a file; empty if it cannot be read."""
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return posix.read(descriptor, 4096)
    except OSError:
        return b""
    finally:
        posix.close(descriptor)


def status_without_agent(path: bytes, why: str) -> tuple[bytes, int]:
    """STATUS: "not available" until the agent has served in this boot, as the file `served` beside its socket tells.

    Its first line is the boot id, and a second line `strict` asks for "not available" whenever the agent is away. Otherwise an
    agent's restart must not make the node NotReady: kubelet's node would lose its pods over it. ADD says "try again" meanwhile.
    Raises CniError.
    """
    boot, _, setting = read_file(path.rpartition(b"/")[0] + b"/served").partition(b"\n")
    if boot and boot.strip() == boot_id() and setting.strip() != b"strict":
        return b"", 0
    raise CniError(NOT_AVAILABLE, "Knitter's agent does not serve on this node", why)


# ---- the queue of DELs ------------------------------------------------------------------------------------------------------

MAX_ENTRIES = 10_000
MAX_OCTETS = 64 * 1024 * 1024
LOCK_SECONDS = 5.0  # a DEL whose time is up still waits so long for the queue, and asks the agent again no longer than this


def keep_detach(
    environ: dict[bytes, bytes], path: bytes, message: bytes, request_id: bytes, deadline: float, why: str
) -> tuple[bytes, int]:
    """DEL without an agent: keeps the call on disk, where the agent finds it, and succeeds. Raises CniError if it cannot be kept.

    With the queue's lock in hand it asks the agent once more: one that has come back meanwhile answers itself.
    """
    directory = (environ.get(b"KNITTER_STATE") or STATE) + b"/delq"
    try:
        make_directory(directory)
        lock = take_lock(directory + b"/.lock", max(deadline, monotonic() + LOCK_SECONDS))
        try:
            if monotonic() < deadline:
                try:
                    return call(path, b"Detach", field(1, message), min(deadline, monotonic() + LOCK_SECONDS))
                except NoAnswerError:
                    pass  # told by `why` already
            check_room(directory)
            write_entry(directory, message, request_id)
        finally:
            posix.close(lock)
    except OSError as error:
        details = f"{directory.decode('utf-8', 'replace')}: {error.strerror or error}; and {why}"
        raise CniError(TRY_AGAIN, "Knitter's agent gave no answer, and the DEL cannot be kept for it", details) from error
    return b"", 0


def make_directory(path: bytes) -> None:
    """Makes a directory of 0700, and what is missing above it. Raises OSError."""
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        parent = path.rpartition(b"/")[0]
        if not parent:
            raise
        make_directory(parent)
        make_directory(path)
        return
    sync_directory(path.rpartition(b"/")[0] or b"/")


def take_lock(path: bytes, until: float) -> int:
    """Locks a file exclusively; closing the descriptor frees it. Raises OSError, TimeoutError at the time `until` (monotonic)."""
    import _signal  # type: ignore[import-not-found]  # what `signal` is made of, without its enums
    import fcntl

    def give_up(_number: int, _frame: object) -> None:
        raise TimeoutError(f"another process holds {path.decode('utf-8', 'replace')}")

    lock = posix.open(path, posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
    _signal.signal(_signal.SIGALRM, give_up)
    _signal.setitimer(_signal.ITIMER_REAL, max(until - monotonic(), 0.001))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        posix.close(lock)
        raise
    finally:
        _signal.setitimer(_signal.ITIMER_REAL, 0)
    return lock


def check_room(directory: bytes) -> None:
    """Raises OSError if the queue is full. Removes what plugins left that died while they wrote: no other holds the lock."""
    entries = octets = 0
    with posix.scandir(directory) as names:
        for entry in names:
            try:
                if entry.name.startswith(b".tmp-"):
                    posix.unlink(entry.path)
                elif entry.name.endswith(b".del"):
                    entries += 1
                    octets += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue  # the agent took it
    if entries >= MAX_ENTRIES or octets >= MAX_OCTETS:
        raise OSError(28, f"the queue is full: {entries} entries, {octets} octets")


def write_entry(directory: bytes, message: bytes, request_id: bytes) -> None:
    """Adds a QueuedDetach so that it is there whole or not at all, also after a loss of power. Raises OSError."""
    from binascii import crc32

    now = time_ns()
    queued = field(1, message) + b"\x11" + now.to_bytes(8, "little") + field(3, boot_id())
    temporary = directory + b"/.tmp-" + request_id
    descriptor = posix.open(temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600)
    try:
        try:
            write_all(descriptor, b"KDQ1" + crc32(queued).to_bytes(4, "big") + queued)
            posix.fsync(descriptor)
        finally:
            posix.close(descriptor)
        posix.rename(temporary, directory + b"/%d-%s.del" % (now, request_id))
    except OSError:
        posix.unlink(temporary)
        raise
    sync_directory(directory)


def sync_directory(path: bytes) -> None:
    """Makes the names in a directory durable. Raises OSError."""
    descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        posix.fsync(descriptor)
    finally:
        posix.close(descriptor)


if __name__ == "__main__":
    main()
