"""The command ``qworker``."""

from qworker.system.interrupts import raise_on_interrupt
from qworker.system.streams import open_standard_streams


def main() -> None:
    """Run the command line, with its standard streams open."""
    open_standard_streams()
    from qworker.cli import main as run_command  # noqa: PLC0415 — nothing may open a file before

    raise_on_interrupt()
    run_command()


if __name__ == "__main__":
    main()
