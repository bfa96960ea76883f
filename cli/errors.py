"""What a command reports as one clear line on standard error, with a non-zero exit code."""


class CommandError(Exception):
    """A failure that the user can act on; `exit_code` is the process's."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
