"""Commands as a user types them, run in this process."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from roclip_sanitize.cli import run


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command ended with.

    Attributes:
        code: its exit code.
        out: stdout.
        err: stderr.
    """

    code: object
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Stderr, line by line."""
        return self.err.splitlines()

    @property
    def line(self) -> str:
        """The only line on stderr."""
        (line,) = self.lines
        return line


class Roclip:
    """Runs a command in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Said:
        with pytest.raises(SystemExit) as caught:
            run([str(argument) for argument in arguments])
        said = self._capsys.readouterr()
        assert "Traceback" not in said.err
        return Said(code=caught.value.code, out=said.out, err=said.err)
