"""The errors a user can meet. Each says what is wrong and where (`message`), and what to do (`fix`).

Only `cli/main.py` catches them; it prints an `error:` line and a `fix:` line.
"""

import difflib
from collections.abc import Iterable

from openclimb.masking import without_secrets


class OpenclimbError(Exception):
    """Something the user can put right. `fix` is one sentence that says how; it may be empty."""

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(without_secrets(message))  # an address in it may be signed
        self.message = without_secrets(message)
        self.fix = without_secrets(fix)
        if fix:
            self.add_note(f"fix: {self.fix}")  # a notebook shows it under the message

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.message, self.fix)  # crosses process borders whole


class ConfigError(OpenclimbError):
    """A setting is unknown, or its value cannot be used."""


class InputError(OpenclimbError):
    """The user's documents or tasks cannot be read as they are."""


class WorkspaceError(OpenclimbError):
    """The workspace is missing, newer than this version, or incomplete for what was asked."""


class StaleError(WorkspaceError):
    """A finished stage was made from other settings or other inputs than the present ones."""


class HeldError(WorkspaceError):
    """Another process is working on this workspace."""


class DomainError(OpenclimbError):
    """No usable set of domains: every cluster pruned, a domain too small, caps no mixture can meet."""


class SearchError(OpenclimbError):
    """The search cannot go on: no trial has scores, a mixture breaks its caps, a score is missing."""


class EndpointError(OpenclimbError):
    """The endpoint of a language model refuses requests, does not answer, or gives nothing that can be used."""


class MissingDependency(OpenclimbError):
    """An optional library is not installed; the fix is the line that installs it."""

    def __init__(self, library: str, fix: str = "") -> None:
        super().__init__(f"{library} is not installed", fix or f"pip install {library}")
        self.library = library

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.library, self.fix)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the known name nearest to `name`, or "" when none is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""
