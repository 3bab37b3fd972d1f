"""The errors a user can cause or mend: what was wrong, where, and what to do about it."""


class RecstillError(Exception):
    """A failure that is explained to the user in one message, without a traceback.

    Args:
        message: What was wrong, and where (file, row, key, address).
        remedy: What to do about it, as an instruction. Empty when there is nothing to add.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message


class SettingsError(RecstillError):
    """params.yaml, or a value given on the command line, is wrong."""


class DataError(RecstillError):
    """Input data are missing, damaged or not of the expected form."""


class IntegrityError(RecstillError):
    """Bytes are not the bytes that were written: a digest differs, or a file is cut short."""


class StorageError(RecstillError):
    """The object store cannot be reached, refuses the credentials, or lacks an object."""


class TrainingError(RecstillError):
    """Training cannot go on: a loss that is not finite, or settings that Lightning refuses."""


class CompressionError(RecstillError):
    """A compressed network is not equivalent to what it was made from, or cannot be made."""


class BudgetError(RecstillError):
    """No variant meets the scenario's budget and gate."""
