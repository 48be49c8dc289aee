"""What is said to whoever still listens: a pipe may have been closed at its other end."""

import os
from typing import TextIO


def tell(line: str, *streams: TextIO) -> None:
    """Print a line to the first of these streams that is still read; if none is, nobody can be told."""
    for stream in streams:
        try:
            print(line, file=stream, flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python would try again when it ends
        else:
            return
