"""The App of all background jobs. Its broker is in QWORKER_BROKER, else the file qworker.db beside manage.py."""

from collections.abc import Iterator

from django.db import close_old_connections

from qworker import App

app = App()


@app.around_thread
def connections() -> Iterator[None]:
    """Do for a job what Django does for a request: no connection is used that is too old, or broken."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()
