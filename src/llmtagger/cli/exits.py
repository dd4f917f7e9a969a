"""What the exit code of a command says."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of all commands."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REJECTED = 3
    GATE = 4
    UNPROMISED = 5
    INTERRUPTED = 130
    TERMINATED = 143

    @property
    def meaning(self) -> str:
        """In words, as `docs/cli.md` lists it."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "failed; the message says why and what to do",
    ExitCode.USAGE: "wrong usage: an option or an argument",
    ExitCode.REJECTED: "done, but some rows were rejected",
    ExitCode.GATE: "done, but a gate failed (`--fail-under`)",
    ExitCode.UNPROMISED: "the requested precision cannot be promised (the message says why)",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C",
    ExitCode.TERMINATED: "ended by SIGTERM",
}
