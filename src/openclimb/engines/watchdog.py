"""A process that ends a command when whoever started it is gone, also by `kill -9`.

Run as a program with the number of a process group. It waits on its standard input: a byte says that all is well; the
end of it without one says that the other side was killed, and the group is killed too.
"""

import contextlib
import os
import signal
import sys


def main() -> None:
    """Wait; then let the group be, or kill it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # Slurm sends them to all of a job; the standard input says when to end
    if not sys.stdin.buffer.read(1):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(int(sys.argv[1]), signal.SIGKILL)


if __name__ == "__main__":
    main()
