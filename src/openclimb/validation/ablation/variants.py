"""The variants of an ablation: workspaces that differ from their base in one setting, and what they share with it.

Reads the base. Writes `ablations/NAME/`: climb.toml, and links to the base's stages (or another variant's) that the
setting does not change; what it changes is made there by `climb run`'s own code.
"""

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from openclimb.config.load import result_settings, with_changes
from openclimb.config.schema import SECTIONS, SEEDS, Config
from openclimb.corpus.custom_domains import FILE, has_custom_domains
from openclimb.errors import ConfigError, StaleError, nearest
from openclimb.recipes import current_recipes, trial_data
from openclimb.validation.compare import target_of
from openclimb.workspace.files import file_names
from openclimb.workspace.observations import EXTERNAL_ROLE
from openclimb.workspace.records import TRANSFER, Workspace
from openclimb.workspace.share import fingerprint_of, link_folder, share_stages
from openclimb.workspace.trials import read_trials, trial_folder

FOLDER = "ablations"
INIT = {"design": "climb", "dirichlet": "climb-dirichlet", "random": "climb-random"}  # first design → search.proposer
RESERVED = ("trials",)  # other folders of `ablations/`

Over = Mapping[str, Sequence[Any]]  # setting → its values


@dataclass(frozen=True)
class Variant:
    """The base's settings with one other value. `name` is that of its folder."""

    factor: str
    value: Any
    name: str
    config: Config

    @property
    def title(self) -> str:
        """As tables have it: search.trials = [28]."""
        return f"{self.factor} = {shown(self.value)}"


def shown(value: Any) -> str:
    """Return a value as one would write it in a list of values: text without quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def variants_of(config: Config, over: Over, root: Path) -> list[Variant]:
    """Return a variant for each value, those that are the workspace's own left out.

    Raises ConfigError for an unknown setting or value, one that changes no result, and where nothing is left.
    """
    found: list[Variant] = []
    for factor, values in over.items():
        for value in values:
            changed = _changed(config, factor, value, root)
            if result_of(changed) == result_of(config):
                continue
            plain = re.sub(r"[^\w.]+", "-", shown(value)).strip("-.") or "empty"
            name = file_names([f"{factor}-{plain}"], RESERVED)[0]
            if name in {one.name for one in found}:
                raise ConfigError(f"{factor} = {shown(value)} is named twice", "name every value once")
            found.append(Variant(factor, value, name, changed))
    if not found:
        named = ", ".join(over) or "nothing"
        raise ConfigError(
            f"there is nothing to compare: {named} has no value that differs from the workspace's and changes a result",
            "--over 'search.trials=[[16, 8, 4], [28]]' clusters.k=12,48 init=dirichlet,random",
        )
    return found


def result_of(config: Config) -> dict[str, Any]:
    """Return the settings that change a result."""
    return {"seed": config.seed, **{name: result_settings(getattr(config, name)) for name in SECTIONS}}


def _changed(config: Config, factor: str, value: Any, root: Path) -> Config:
    """Return the settings with one changed; a proxy's size changes its shape and not the tokenizer."""
    if factor == "seed":
        low, high = SEEDS
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(f"seed = {shown(value)} is no seed", f"it must be a whole number from {low} to {high:,}")
        changed = replace(config, seed=value)
    elif factor == "init":
        if config.search.proposer not in INIT.values():
            raise ConfigError(
                f"init says how the first design of our search is drawn, and search.proposer is "
                f"'{config.search.proposer}'",
                "compare proposers instead: --over search.proposer=climb,recipe",
            )
        if value not in INIT:
            raise ConfigError(
                f"init = {shown(value)} is not known{nearest(str(value), INIT)}", f"use {', '.join(INIT)}"
            )
        changed = with_changes(config, {"search": {"proposer": INIT[value]}})
    else:
        section, _, key = factor.partition(".")
        known = [f"{one}.{field.name}" for one, of in SECTIONS.items() for field in fields(of)]
        if factor not in known:
            raise ConfigError(
                f"there is no setting '{factor}'{nearest(factor, known)}", "write section.key, seed or init"
            )
        if section == "proxy":
            changed = replace(target_of(config, {key: value}), tokens=config.tokens)
        else:
            changed = with_changes(config, {section: {key: value}})
    return at_home(changed, root)


def at_home(config: Config, root: Path) -> Config:
    """Return the settings with the command's files of a workspace as absolute paths: it is run in another folder."""
    words = [str((root / word).resolve()) if (root / word).is_file() else word for word in config.objective.command]
    return replace(config, objective=replace(config.objective, command=tuple(words)))


def make_variant(base: Workspace, config: Config, variant: Variant, others: Iterable[Variant], redo: bool) -> Workspace:
    """Return the workspace of a variant, made where it is not there, with all that it shares with the base or `others`.

    Raises StaleError where it was made of other settings, unless `redo` moves it aside.
    """
    folder = base.root / FOLDER / variant.name
    workspace = Workspace(folder)
    if workspace.config_path.is_file():
        there = workspace.config()
        if result_of(there) != result_of(variant.config):
            if not redo:
                raise StaleError(
                    f"{FOLDER}/{variant.name} is of other settings of the workspace than the present ones",
                    f"climb ablate {base.root} --redo … (it is moved aside and made anew)",
                )
            Workspace(folder.parent).set_aside(variant.name)
        elif there != variant.config:  # where the work runs
            workspace.config_path.unlink()
    if not workspace.config_path.is_file():
        workspace.create(variant.config)
    if has_custom_domains(config) and not (folder / FILE).is_file():
        shutil.copyfile(base.root / FILE, folder / FILE)
    if (base.root / TRANSFER).is_dir() and not (folder / TRANSFER).is_dir():
        link_folder(base.root / TRANSFER, folder / TRANSFER)
    recipes = current_recipes(workspace, variant.config)
    shared = [recipe for stage, recipe in recipes.items() if stage != "mixture"]
    share_stages(workspace, shared, [base.root, *(base.root / FOLDER / one.name for one in others)])
    _share_external(base.root, config, workspace, trial_data(recipes))
    return workspace


def _share_external(root: Path, config: Config, workspace: Workspace, data: str) -> None:
    """Link the trials that the base learnt from and did not make, where the variant's trials are of the same data."""
    if trial_data(current_recipes(Workspace(root), config)) != data:
        return
    for trial in read_trials(root / "trials", data):
        there = trial_folder(workspace.root / "trials", trial.number)
        if trial.role == EXTERNAL_ROLE and trial.scores and not there.exists():
            there.parent.mkdir(exist_ok=True)
            link_folder(trial_folder(root / "trials", trial.number), there)


def stages_to_make(base: Workspace, variant: Variant) -> set[str]:
    """Return the stages that a variant neither has nor shares with the base; all but the search where it has none."""
    workspace = Workspace(base.root / FOLDER / variant.name)
    found = current_recipes(workspace if workspace.config_path.is_file() else base, variant.config)
    return {
        stage
        for stage, recipe in found.items()
        if recipe.fingerprint not in (fingerprint_of(base.root, stage), fingerprint_of(workspace.root, stage))
    }
