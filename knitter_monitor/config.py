"""The monitor's configuration file: every key with its unit, default and why."""

from dataclasses import dataclass

from knitter_common.errors import Invalid
from knitter_common.serve.logs import LogSettings
from knitter_common.serve.server import ServerSettings
from knitter_common.settings import Seconds, setting


@dataclass(frozen=True)
class FolderSettings:
    """A folder of declared objects."""

    name: str = setting('names the source of its objects: "files:<name>"; change it only after `knitterctl adopt`')
    path: str = setting("the folder; *.yaml, *.yml and *.json in it are read, hidden files and folders below are not")


@dataclass(frozen=True)
class FilesSettings:
    """How folders are read."""

    settle: Seconds = setting(
        "quiet time after a change before a folder is read, so that files copied together are read together",
        Seconds(0.1),
        low=0,
        high=60,
    )
    settle_most: Seconds = setting("a folder that never comes to rest is read after this", Seconds(2.0), low=0, high=600)
    vanish_grace: Seconds = setting(
        "how long an object must be missing before it is deleted: files are often replaced in steps",
        Seconds(3.0),
        low=0,
        high=86400,
    )
    retry_most: Seconds = setting(
        "longest wait before what failed is tried again; what may help is tried at once", Seconds(60.0), low=0.1, high=3600
    )


@dataclass(frozen=True)
class PushSettings:
    """How nodes are served."""

    heartbeat: Seconds = setting(
        "a Watch on which nothing was sent for this long gets a heartbeat", Seconds(10.0), low=0.05, high=600
    )
    tombstone_age: Seconds = setting(
        "how long deletions are remembered for nodes that come back; after that they begin anew", Seconds(3600.0), low=0
    )
    tombstones_per_topic: int = setting(
        "at most this many deletions of one topic are remembered (about 500 bytes each)", 50_000, low=0
    )
    behind_wait: Seconds = setting(
        "how long a node that has seen more than this monitor waits before it is sent to another", Seconds(2.0), low=0, high=60
    )
    slow_after: Seconds = setting("a Watch is cut when the node takes no message for this long", Seconds(30.0), low=0.1, high=600)
    message_changes: int = setting("changes in one message", 500, low=1, high=10_000)
    message_bytes: int = setting("size of one message, about, in bytes", 256 * 1024, low=1024, high=3 * 1024 * 1024)


@dataclass(frozen=True)
class MonitorSettings:
    """The whole file."""

    managers: tuple[str, ...] = setting(
        'addresses of the managers, as many as are known: ["127.0.0.1:7470"]', ("127.0.0.1:7470",), address="peer"
    )
    listen: str = setting("where to serve: host:port (port 0: any free one) or unix:/path", "127.0.0.1:7471", address="served")
    folders: tuple[FolderSettings, ...] = setting("folders of declared objects", ())
    files: FilesSettings = setting("how folders are read", FilesSettings())
    push: PushSettings = setting("how nodes are served", PushSettings())
    feed_silence: Seconds = setting(
        "a manager's feed on which nothing came for this long, not even a heartbeat, is given up", Seconds(30.0), low=0.1, high=3600
    )
    server: ServerSettings = setting("the gRPC server", ServerSettings())
    log: LogSettings = setting("what is logged", LogSettings())

    def __post_init__(self) -> None:
        """What the types cannot say. Raises Invalid."""
        if not self.managers:
            raise Invalid("FIELD_INVALID", "managers: at least one address is needed", field="managers")
        names = [folder.name for folder in self.folders]
        for name in names:
            if not name or "/" in name or names.count(name) > 1:
                text = f'folders: name {name!r} must be there once, not be empty and have no "/"'
                raise Invalid("FIELD_INVALID", text, field="folders")
