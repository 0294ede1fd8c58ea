"""The stages of a workspace: each folder has a record, written last, that knows its recipe.

Reads and writes `climb.toml`, `<stage>/record.json`, `<stage>.partial/recipe.json`. A stage works in
`<stage>.partial/`; its record is written last and the folder renamed, so that `record.json` means completion. What
differs between a record and the present recipe is reported by name.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from openclimb.config.load import from_dict, recorded_settings, secrets_of, to_toml
from openclimb.config.schema import Config
from openclimb.errors import ConfigError, StaleError, WorkspaceError
from openclimb.progress import silent
from openclimb.workspace.context import StageContext
from openclimb.workspace.damage import stop_if_damaged
from openclimb.workspace.files import (
    JOBS,
    file_checksum,
    fingerprint,
    folder_fingerprint,
    read_json,
    versions,
    write_json,
    write_text,
)
from openclimb.workspace.lock import held, holder

Inputs = ParamSpec("Inputs")

STAGES = ("corpus", "clusters", "labels", "duplicates", "contamination", "domains", "tokens", "mixture")
READ_WHOLE = ("domains", "tokens", "mixture")  # at every run: their content is compared too, not their size alone
ANNOTATIONS = "annotations"  # the folder of labels by a language model: beside the stages, made by its own command
TRANSFER = "transfer"  # the folder of what a workspace took from another one
URL = re.compile(r"[A-Za-z][\w+.-]+:/")  # as Path writes it, with one stroke
FORMAT = 2  # of the workspace on disk: another one was made by an earlier or a newer version


@dataclass(frozen=True)
class Recipe:
    """What decides a stage's result: its settings, its inputs' fingerprints, its code's version."""

    stage: str
    version: int
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the whole recipe."""
        return fingerprint(json.loads(json.dumps(dataclasses.asdict(self))))


@dataclass(frozen=True)
class StageState:
    """What a stage's folder says: missing, partial, done or stale, and why."""

    stage: str
    state: str
    differs: tuple[str, ...] = ()
    seconds: float = 0.0
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Workspace:
    """One folder: one corpus, one search, one answer."""

    def __init__(self, root: Path) -> None:
        if URL.match(str(root)) and not root.exists():
            raise WorkspaceError(
                f"{root} is an address, and a workspace is a folder of this machine",
                "choose a local folder; corpus, tasks and the export's --out may be addresses",
            )
        self.root = root

    @property
    def config_path(self) -> Path:
        """Where the settings are."""
        return self.root / "climb.toml"

    def folder(self, stage: str) -> Path:
        """Return the finished folder of a stage."""
        return self.root / stage

    def config(self) -> Config:
        """Return the settings in `climb.toml`, checked."""
        if not self.config_path.is_file():
            raise WorkspaceError(
                f"{self.root} is not a workspace: it has no climb.toml", f"climb init {self.root} --corpus …"
            )
        try:
            raw = tomllib.loads(self.config_path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{self.config_path} is not valid TOML: {error}", "correct that line") from None
        _check_format(raw.pop("format", FORMAT), self.root)
        return from_dict(raw)

    def create(self, config: Config) -> None:
        """Write a new `climb.toml`, for its owner alone where it has secrets; an existing one is never overwritten."""
        if self.config_path.exists():
            raise WorkspaceError(f"{self.root} is a workspace already", "edit its climb.toml, or choose another folder")
        head, _, body = to_toml(config).partition("\n\n")
        line = f"format = {FORMAT}  # of the folders on disk; not to be changed"
        write_text(self.config_path, f"{head}\n\n{line}\n{body}", private=bool(secrets_of(config)))

    def state(self, recipe: Recipe) -> StageState:
        """Return how the folder of a stage stands against the recipe that would make it now."""
        for folder, name in ((self.folder(recipe.stage), "record.json"), (self._partial(recipe), "recipe.json")):
            if (folder / name).is_file():
                record = read_json(folder / name)
                _check_format(record.get("format", FORMAT), self.root)
                differs = _differences(record, recipe)
                if differs:
                    return StageState(recipe.stage, "stale", differs)
                if name == "recipe.json":
                    return StageState(recipe.stage, "partial")
                return StageState(recipe.stage, "done", (), record["seconds"], record["facts"])
        if (self._partial(recipe) / "record.json").is_file():
            return StageState(recipe.stage, "partial")  # killed at its last step, which the next run takes
        if any(self._partial(recipe).glob("[!.]*")):  # a hidden file is a write that was cut short
            return StageState(recipe.stage, "stale", (f"{self._partial(recipe).name}/ does not say what made it",))
        return StageState(recipe.stage, "missing")

    def begin(self, recipe: Recipe) -> Path:
        """Return the partial folder of a stage, with its recipe in it; pieces of a killed run are still there."""
        partial = self._partial(recipe)
        partial.mkdir(parents=True, exist_ok=True)
        write_json(partial / "recipe.json", {"format": FORMAT, **dataclasses.asdict(recipe)})
        return partial

    def begin_waiting(self, recipe: Recipe | None) -> Path | None:
        """Return what `begin` does; None where there is no such stage, or it is finished."""
        return self.begin(recipe) if recipe and self.state(recipe).state != "done" else None

    def reopen(self, recipe: Recipe) -> Path:
        """Return a finished folder as a partial one again, to be added to; its record goes."""
        os.rename(self.folder(recipe.stage), self._partial(recipe))
        partial = self.begin(recipe)
        (partial / "record.json").unlink()
        return partial

    def finish(self, recipe: Recipe, facts: Mapping[str, Any], seconds: float) -> None:
        """Write the record of a stage, last, and give its folder the final name.

        The recipe stays until the record is there: a folder that was left at any moment says what made it.
        """
        partial = self._partial(recipe)
        shutil.rmtree(partial / JOBS, ignore_errors=True)
        ours = (path for path in partial.rglob("*") if path.is_file() and not path.name.startswith("."))
        files = sorted(path for path in ours if path != partial / "recipe.json")  # a hidden one was cut short
        record = {
            "format": FORMAT,
            **dataclasses.asdict(recipe),
            "fingerprint": recipe.fingerprint,
            "facts": facts,
            "files": {
                str(path.relative_to(partial)): {"bytes": path.stat().st_size, "checksum": file_checksum(path)}
                for path in files
            },
            "seconds": round(seconds, 2),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
        }
        write_json(partial / "record.json", record)
        (partial / "recipe.json").unlink()
        os.rename(partial, self.folder(recipe.stage))

    def make(
        self,
        recipe: Recipe,
        context: StageContext,
        work: Callable[Concatenate[StageContext, Inputs], Mapping[str, Any]],
        *inputs: Inputs.args,
        **named: Inputs.kwargs,
    ) -> Path:
        """Return the finished folder of a stage; `work(context, *inputs)` makes it where it is not finished.

        Raises WorkspaceError for a finished one with a file that is not as it was made.
        """
        state = self.state(recipe)
        if state.state == "stale":
            raise stale_error(state, self.root)
        if state.state != "done":
            began = time.monotonic()
            facts = work(context.at(self.begin(recipe)), *inputs, **named)
            self.finish(recipe, facts, time.monotonic() - began)
        else:
            stop_if_damaged(self.root, [recipe.stage], recipe.stage in READ_WHOLE)
            context.progress.note(f"{recipe.stage}: done before, reused")
        return self.folder(recipe.stage)

    def recover(self, stage: str) -> None:
        """Give a stage that was killed between its record and its final name that name."""
        partial = self.root / f"{stage}.partial"
        if (partial / "record.json").is_file() and not self.folder(stage).exists():
            (partial / "recipe.json").unlink(missing_ok=True)
            os.rename(partial, self.folder(stage))

    def set_aside(self, stage: str) -> list[Path]:
        """Move a stage's folders to `<stage>.old-N`; return where they went. Nothing is deleted."""
        moved = []
        for folder in (self.folder(stage), self.root / f"{stage}.partial"):
            if folder.exists():
                n = 1
                while (aside := self.root / f"{folder.name}.old-{n}").exists():
                    n += 1
                os.rename(folder, aside)
                moved.append(aside)
        return moved

    def _partial(self, recipe: Recipe) -> Path:
        return self.root / f"{recipe.stage}.partial"

    @contextlib.contextmanager
    def hold(self, wait_seconds: float | None = None, note: Callable[[str], None] = silent) -> Iterator[None]:
        """Hold the workspace while the block runs; raise HeldError when another process does, so long after waiting.

        `wait_seconds`: None for some seconds. `note` is given what a person should know. Stages that were killed at
        their last step are completed.
        """
        if not self.config_path.is_file():
            self.config()  # says what is wrong
        with held(self.root, wait_seconds, note):
            for stage in STAGES:  # not by who only reads: it would be in the way of who makes the stage
                self.recover(stage)
            yield

    def holder(self) -> str:
        """Return who holds the workspace, or "" when nobody does."""
        return holder(self.root)


def trial_settings(config: Config) -> dict[str, Any]:
    """Return the settings that, with mixture, seed and data, decide a trial's scores."""
    if config.objective.external:  # the proxy's shape is not its trainer's
        return {**recorded_settings(config.objective), "token_budget": config.proxy.token_budget}
    proxy = recorded_settings(config.proxy)
    checkpoint = proxy.pop("checkpoint")
    if checkpoint:  # known by its content, wherever it is; a hub's by its name
        proxy["checkpoint"] = folder_fingerprint(checkpoint) or checkpoint
    return {**proxy, "metric": config.tasks.metric}


def stale_error(state: StageState, root: Path) -> StaleError:
    """Return the error that names what differs and the ways out."""
    listed = "\n".join(f"  {line}" for line in state.differs)
    return StaleError(
        f"{state.stage}/ was made with other settings or inputs:\n{listed}",
        f"put the setting back; or `climb run {root} --redo {state.stage}` (the old folder and those made from it "
        "are moved aside); or make a new workspace with `climb init`",
    )


def _check_format(found: Any, root: Path) -> None:
    if not isinstance(found, int) or found > FORMAT:
        raise WorkspaceError(
            f"{root} was made by a newer version of Openclimb (format {found}; this one knows up to {FORMAT})",
            "pip install --upgrade openclimb",
        )
    if found < FORMAT:
        raise WorkspaceError(
            f"{root} was made by an earlier version of Openclimb (format {found}; this one reads {FORMAT})",
            "start a new workspace with climb init; CHANGELOG.md lists the settings that have other names now",
        )


def _differences(record: Mapping[str, Any], recipe: Recipe) -> tuple[str, ...]:
    now = json.loads(json.dumps(dataclasses.asdict(recipe)))
    lines = []
    if record["version"] != now["version"]:
        lines.append(f"the stage's code: version {record['version']} then, {now['version']} now")
    for key in sorted({*record["settings"], *now["settings"]}):
        then, new = record["settings"].get(key), now["settings"].get(key)
        if then != new:
            lines.append(f"{key}: {json.dumps(then)} then, {json.dumps(new)} now")
    inputs = sorted({*record["inputs"], *now["inputs"]})
    lines += [f"its input: {key}" for key in inputs if record["inputs"].get(key) != now["inputs"].get(key)]
    return tuple(lines)
