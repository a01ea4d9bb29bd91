"""The words of the CNI specification 1.1.0: calls in, results and errors out. Pure: bytes and dictionaries, no I/O."""

from knitter_agent.cni.answer import Answer, failure, success
from knitter_agent.cni.call import Call, parse_call
from knitter_agent.cni.conf import NetConf, Primary, version_of

__all__ = ["Answer", "Call", "NetConf", "Primary", "failure", "parse_call", "success", "version_of"]
