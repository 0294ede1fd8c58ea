"""The seam "engine": where per-unit work runs. One is built in, `local`: processes of this machine."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from openclimb.config.schema import RunSettings

Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine(Protocol):
    """What runs a function over items, several at once."""

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], workers: int | None = None
    ) -> Iterator[tuple[int, Result]]:
        """Yield (index, function(item)) as results come; at most `workers` calls run at once.

        `function` is importable by name (or a partial of such); what it raises is raised here. Raises OpenclimbError
        when a worker died.
        """

    def release(self) -> None:
        """Let go of workers and what they hold in memory; the next map starts new ones."""


@contextmanager
def engine_of(settings: RunSettings) -> Iterator[Engine]:
    """Give the engine of a workspace's settings, and release it at the end."""
    from openclimb.engines.local import LocalEngine

    engine = LocalEngine(settings.workers)
    try:
        yield engine
    finally:
        engine.release()
