"""What people are told of a source: how much is applied, and what is wrong, where and since when."""

from dataclasses import dataclass, field

from knitter.v1 import monitor_pb2 as pb
from knitter_common.convert import time_to_proto
from knitter_common.errors import KnitterError

MOST_TOLD = 1000  # problems of a source; what they are all about is in the log

_MOST_BYTES = 2 * 1024 * 1024  # of their messages: a source travels in one message


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be applied, or deleted. `object` is "" where that is not known."""

    place: str
    object: str
    reason: str
    message: str


def problem_of(error: KnitterError, place: str, what: str = "") -> Problem:
    """An error, and where it belongs."""
    return Problem(place, what, error.reason, error.message)


@dataclass(slots=True)
class Report:
    """The state of one source. `problems` → since when; times in nanoseconds since 1970, 0 for never."""

    name: str
    path: str
    readable: bool = False
    declared: int = 0
    applied: int = 0
    read_time: int = 0
    problems: dict[Problem, int] = field(default_factory=dict)

    def put(self, problems: set[Problem], now: int) -> tuple[set[Problem], set[Problem]]:
        """These are the problems now. Returns the new ones, and those that are no more."""
        new, gone = problems - self.problems.keys(), self.problems.keys() - problems
        self.problems = {problem: self.problems.get(problem, now) for problem in problems}
        return new, gone

    def to_proto(self) -> pb.Source:
        """For ListSources."""
        return pb.Source(
            name=self.name,
            path=self.path,
            readable=self.readable,
            declared=self.declared,
            applied=self.applied,
            read_time=time_to_proto(self.read_time) if self.read_time else None,
            problems=self._first_problems(),
            problem_count=len(self.problems),
        )

    def _first_problems(self) -> list[pb.SourceProblem]:
        told, size = list[pb.SourceProblem](), 0
        for problem, since in sorted(self.problems.items(), key=lambda entry: (entry[0].place, entry[0].object))[:MOST_TOLD]:
            told.append(
                pb.SourceProblem(
                    place=problem.place,
                    object=problem.object,
                    reason=problem.reason,
                    message=problem.message,
                    since_time=time_to_proto(since),
                )
            )
            size += told[-1].ByteSize()
            if size > _MOST_BYTES:
                break
        return told
