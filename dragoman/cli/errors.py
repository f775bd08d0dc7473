"""How a command says that it cannot go on."""

from __future__ import annotations


class CommandError(Exception):
    """Ends a command with a message for people, without a traceback."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
