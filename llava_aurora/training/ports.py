"""A free port for the ranks of a run on one machine."""

import socket


def free_port() -> int:
    """A port of this machine that nothing listens on now."""
    with socket.socket() as found:
        found.bind(("", 0))
        return found.getsockname()[1]
