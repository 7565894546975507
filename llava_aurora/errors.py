"""The exception whose message is meant for users.

Every command catches it, prints its message as one line and exits with 1. Whatever raises it has already made
sure that nothing written before is lost.
"""


class AuroraError(Exception):
    """Something the user can mend: bad input, a wrong version, a file that is not what it should be.

    The message is one line that names the file, the record where there is one, and the remedy.
    """


def shown(error: object) -> str:
    """An error's message as it is printed: one line; the middle of a very long one, an input's text, is left out."""
    text = " ".join(str(error).splitlines())
    return text if len(text) <= 1000 else f"{text[:700]} … {text[-250:]}"
