"""The fail-points (knitter_common/failpoints.py), by what passes them: each is tried with every kind in tests/faults, and a unit
test compares these tables with the code."""

from dataclasses import dataclass

KINDS = ("error", "panic", "delay(150)", "kill")


@dataclass(frozen=True)
class Step:
    """A fail-point that acts once, after it was passed so many times. `done`: from here on the whole stays, whatever comes."""

    name: str
    passed: int = 0
    done: bool = False

    def rule(self, kind: str) -> str:
        """The rule that arms it."""
        return f"{self.name}={self.passed}+1*{kind}" if self.passed else f"{self.name}=1*{kind}"

    def __str__(self) -> str:
        return f"{self.name}-{self.passed}" if self.passed else self.name


# An agent commits twice before its first ADD: its boot id, and what the manager has told at the connect.
ADD = (
    Step("add.before-allocate"),
    Step("add.after-allocate"),
    Step("add.before-intent"),
    Step("journal.before-commit", 2),
    Step("journal.after-commit", 2),
    Step("add.after-intent"),
    Step("add.wire"),
    Step("wire.new-bridge"),
    Step("wire.bridge"),
    Step("wire.pair"),
    Step("wire.named"),
    Step("wire.addressed"),
    Step("add.wire", 1),
    Step("wire.pair", 1),
    Step("wire.addressed", 1),
    Step("add.wired"),
    Step("add.before-done"),
    Step("journal.before-commit", 3),
    Step("journal.after-commit", 3, done=True),
    Step("add.after-done", done=True),
)
# An ADD whose primary interface is a delegate's: what comes of it may outlive the boot, so that there are two commits more.
ADD_DELEGATED = (
    Step("journal.before-commit", 2),
    Step("journal.after-commit", 2),
    Step("add.after-delegates"),
    Step("journal.before-commit", 3),
    Step("journal.after-commit", 3),
    Step("add.wired"),
    Step("journal.before-commit", 4),
    Step("journal.after-commit", 4, done=True),
    Step("journal.before-commit", 5, done=True),
    Step("journal.after-commit", 5, done=True),
)
# After one ADD; `done`: the DEL is durable.
DEL = (
    Step("del.before-mark"),
    Step("journal.before-commit", 4),
    Step("journal.after-commit", 4, done=True),
    Step("del.after-mark", done=True),
    Step("undo.before-unwire", done=True),
    Step("undo.unwire", done=True),
    Step("unwire.chosen", done=True),
    Step("undo.after-unwire", done=True),
    Step("undo.after-delegates", done=True),
    Step("undo.before-release", done=True),
    Step("undo.after-release", done=True),
    Step("undo.before-drop", done=True),
    Step("journal.before-commit", 5, done=True),
    Step("journal.after-commit", 5, done=True),
)
# An agent that starts with an ADD that was cut short and a DEL that the plugin kept.
RECOVERY = (
    Step("recover.begin"),
    Step("recover.marked"),
    Step("undo.before-unwire"),
    Step("undo.unwire"),
    Step("unwire.chosen"),
    Step("undo.after-unwire"),
    Step("undo.before-release"),
    Step("undo.after-release"),
    Step("undo.before-drop"),
    Step("queue.before-entry"),
    Step("del.before-mark"),
    Step("del.after-mark"),
    Step("queue.after-entry"),
    Step("reconcile.before-told"),
    Step("reconcile.after-told"),
    Step("journal.before-commit"),
    Step("journal.after-commit"),
    Step("journal.before-commit", 1),
    Step("journal.after-commit", 1),
)
# An agent that starts after a reboot.
REBOOT = (
    Step("recover.begin"),
    Step("journal.before-commit"),
    Step("journal.after-commit"),
    Step("recover.marked"),
    Step("undo.before-release"),
    Step("undo.before-drop"),
)
# A manager's commits; the store's come once more before, when it becomes the writer.
COMMIT = (
    Step("manager.before-commit"),
    Step("store.before-commit", 1),
    Step("store.after-commit", 1),
    Step("manager.after-commit"),
)
# A manager's snapshot while it is sent, and its restore between its phases (tests/functional/test_snapshots.py).
RESTORE = (Step("snapshot.begun"), Step("restore.staged"), Step("restore.applied"))
# An agent that brings what is attached to what a network is now (tests/unit/test_agent_follow.py).
FOLLOW = (Step("follow.before-settle"), Step("follow.settled"))
