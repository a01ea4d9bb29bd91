"""The attachments of a node: ADD, DEL, CHECK, GC and STATUS over journal, kernel, manager and delegates."""

from knitter_agent.attachment.add import AFTERWARDS
from knitter_agent.attachment.attachments import Attachments
from knitter_agent.attachment.delegates import Delegates
from knitter_agent.attachment.follow import Follower
from knitter_agent.attachment.sandbox import cookie_at
from knitter_agent.attachment.tools import Tools

__all__ = ["AFTERWARDS", "Attachments", "Delegates", "Follower", "Tools", "cookie_at"]
