"""Says that what an operator has named is not there."""


class NotFound(Exception):
    """The queue, job or file that an operator has named does not exist; the text says so in one line."""
