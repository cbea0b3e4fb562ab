"""The one family of errors a user can cause; the command line turns each into one line and exit code 2."""


class AffgenError(ValueError):
    """Input that cannot be used: the message says what was got, where, what is accepted and what to do next."""


class ModelError(AffgenError):
    """A model directory that is missing, damaged, hostile or of another kind."""


class DataError(AffgenError):
    """A data directory or corpus that does not hold what it should."""
