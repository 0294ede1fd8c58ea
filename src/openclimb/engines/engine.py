"""The seam "engine": where per-unit work runs.

Three are built in: `local`, processes of this machine; `slurm`, jobs of a Slurm cluster; `ray`, actors of a Ray
cluster. Durable state is in our files, so an engine is only where a unit or a trial runs. Work is done at least once:
what a call writes must be the same when it is made twice.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from openclimb.config.registry import load
from openclimb.config.schema import EngineSettings, RunSettings
from openclimb.errors import OpenclimbError
from openclimb.masking import without_secrets
from openclimb.progress import silent

Item = TypeVar("Item")
Result = TypeVar("Result")
Lost = Callable[[Item, str], Result]  # an item that killed its workers, and how they ended → what stands for its result

MOST_DEATHS = 3  # of workers on one item, the last while nothing else runs: then the item is at fault
NAME_CHARS = 200  # of an item in a message


@dataclass(frozen=True)
class Resources:
    """What one call needs, beside the engine's own settings."""

    gpus: float = 0  # GPUs that it trains or embeds on; a part of one where several share it
    cpus: int = 1
    memory_gb: float = 0  # 0: as the engine's settings say
    minutes: float = 0  # 0: as the engine's settings say
    at_once: int | None = None  # calls at once, at most; None: as many as the engine has


ONE_CORE = Resources()


class Engine(Protocol):
    """What runs a function over items, several at once."""

    @property
    def gpus(self) -> int:
        """How many calls that need a GPU run at once; 0 where there is none."""

    @property
    def here(self) -> bool:
        """Whether calls run on this machine, so that its memory and devices are theirs."""

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        resources: Resources = ONE_CORE,
        *,
        folder: Path | None = None,
        lost: Lost[Item, Result] | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Yield (index, function(item)) as results come.

        `function` is importable by name (or a partial of such); what it raises is raised here. `folder`: where it
        writes; all nodes see it, and an engine keeps there what lets it go on when this process dies. An item whose
        worker died MOST_DEATHS times has the result that `lost` gives for it; without `lost` an OpenclimbError that
        names it is raised. A consumer that stops early cancels what has not begun.
        """

    def release(self) -> None:
        """Let go of workers and what they hold in memory; the next map starts new ones."""


class DeviceLost(Exception):
    """A GPU failed in this process, which cannot use it again: the engine ends the worker and tries elsewhere."""


class Tries:
    """Which item is handed out next, and which ones their workers died of.

    An item whose worker died goes behind the others, and after a second death it runs while nothing else does: then it
    is not for want of the memory that others take.
    """

    def __init__(self, n: int) -> None:
        self.waiting, self.alone = deque(range(n)), deque[int]()
        self.running, self.deaths = set[int](), dict[int, int]()
        self.n_done = self.n_aside = 0

    def take(self) -> int | None:
        """Return an item to run now, None where none may."""
        if self.waiting:
            index = self.waiting.popleft()
        elif self.alone and not self.running:
            index = self.alone.popleft()
        else:
            return None
        self.running.add(index)
        return index

    def done(self, index: int) -> None:
        """Note an item's result."""
        self.running.discard(index)
        self.n_done += 1

    def give_back(self, index: int) -> None:
        """Have an item wait again that its worker had not begun, or was stopped in by no fault of the item's."""
        self.running.discard(index)
        self.waiting.appendleft(index)

    def died(self, index: int) -> bool:
        """Note that a worker died of an item; return whether the item is set aside now."""
        self.running.discard(index)
        self.deaths[index] = self.deaths.get(index, 0) + 1
        if self.deaths[index] >= MOST_DEATHS:
            self.n_aside += 1
            return True
        (self.waiting if self.deaths[index] < MOST_DEATHS - 1 else self.alone).append(index)
        return False

    def drop(self) -> None:
        """Hand out no more."""
        self.waiting.clear()
        self.alone.clear()

    def finished(self) -> bool:
        """Return whether nothing waits and nothing runs."""
        return not (self.waiting or self.alone or self.running)

    def result_of_lost(self, item: Item, how: str, lost: Lost[Item, Result] | None) -> Result:
        """Return what stands for the result of an item that was set aside. Raises OpenclimbError where nothing does."""
        if lost is not None and not (self.n_aside > 2 and self.n_done == 0):
            return lost(item, f"its worker died {MOST_DEATHS} times, the last while nothing else ran: {how}")
        raise OpenclimbError(
            f"worker processes died of {name_of(item)}, {MOST_DEATHS} times: {how}",
            "give it more memory, or take it out of the input; what is done is kept, run again to go on",
        )


def name_of(item: Any) -> str:
    """Return what a person knows an item by: the file and place of a unit, the numbers of trials."""
    if isinstance(item, (list, tuple)) and item and all(isinstance(one, Path) for one in item):
        return "trial " + ", ".join(one.name for one in item[:8]) + (" …" if len(item) > 8 else "")
    return without_secrets(str(getattr(item, "name", None) or item))[:NAME_CHARS]


@contextmanager
def engine_of(
    settings: RunSettings, own: EngineSettings | None = None, note: Callable[[str], None] = silent
) -> Iterator[Engine]:
    """Give the engine of a workspace's settings, and release it at the end; `note` is told what a person should know.

    Raises MissingDependency where its library is not installed, ConfigError where its settings do not do.
    """
    make: Callable[[RunSettings, EngineSettings, Callable[[str], None]], Engine] = load("engine", settings.engine)
    engine = make(settings, own or EngineSettings(), note)
    try:
        yield engine
    finally:
        engine.release()
