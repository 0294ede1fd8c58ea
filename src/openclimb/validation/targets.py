"""Trains mixtures as targets: the one place that does, for `climb validate`, `climb ablate` and `climb scaling`.

Reads tokens/, or packs more for a longer run into `<out>/tokens-…/`, which lasts as long as the work. Writes
`<out>/trials/` by the protocol of `workspace/trials.py`: what is done is not done again.
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from openclimb.config.schema import Config
from openclimb.corpus.custom_domains import weighed_domains
from openclimb.corpus.left_out import folders_left_out
from openclimb.corpus.pack import Source
from openclimb.corpus.packed import read_packed
from openclimb.corpus.reading.units import read_units
from openclimb.corpus.tokenizer import same_ids
from openclimb.engines.engine import Engine
from openclimb.errors import ConfigError, InputError, WorkspaceError
from openclimb.objectives.run import TrialRunner
from openclimb.pipeline import pack_all
from openclimb.progress import Progress
from openclimb.proxy.checkpoint import find_checkpoint
from openclimb.recipes import current_recipes, stop_if_stale
from openclimb.validation.judge import Mixture
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import fingerprint
from openclimb.workspace.records import Workspace, trial_settings
from openclimb.workspace.trials import Proposal, Trial, ask, weights_key

BOTH = ("search", "report")


class Targets:
    """What trains mixtures of a workspace's domains, with its settings or those of a larger model."""

    def __init__(
        self,
        root: Path,
        config: Config,
        data: str,
        out: Path,
        engine: Engine,
        progress: Progress,
        *,
        exact: bool = False,
    ) -> None:
        """`root`: of the workspace; `config`: its settings; `data`: the fingerprint of what its trials read; `out`:
        where trials/ is, or will be; `exact`: pack also for a target that is shorter than the workspace's proxy.
        """
        self.root, self.config, self.data, self.out, self.exact = root, config, data, out, exact
        self.engine, self.progress = engine, progress
        self.domains, self.tokens = weighed_domains(root, config)
        self.names = [domain.name for domain in self.domains]

    def data_of(self, config: Config) -> str:
        """Return the fingerprint of the tokens that a target of these settings reads."""
        read = [self.data, config.proxy.token_budget, config.proxy.sequence]
        return fingerprint(read) if self._is_packed_for(config) else self.data

    def _is_packed_for(self, config: Config) -> bool:
        """Return whether a target reads tokens that are packed for it.

        A longer run reads more of each domain, so that it, too, repeats a domain as often as the real target will.
        """
        ours, proxy = self.config.proxy, config.proxy
        longer = proxy.token_budget > ours.token_budget or proxy.sequence > ours.sequence
        other = (proxy.token_budget, proxy.sequence) != (ours.token_budget, ours.sequence)
        return (longer or (self.exact and other)) and self.tokens is not None and not config.objective.external

    def train(
        self, config: Config, proposals: Iterable[Proposal], label: str, parts: tuple[str, ...] = BOTH
    ) -> list[Trial]:
        """Return the proposals' trials that have scores, trained by these settings where they have none yet."""
        data, wanted = self.data_of(config), list(proposals)
        packed = self._packed_at(data) if self._is_packed_for(config) else self.tokens
        asked = ask(self.out / "trials", wanted, self.names, trial_settings(config), data)
        if self._is_packed_for(config) and not all(trial.scores for trial in asked):
            self._pack(config, self._packed_at(data))
        context = StageContext(self.out, self.engine, self.progress, self.config.seed)
        runner = TrialRunner(self.out / "trials", self.root, config, self.domains, packed, data, context)
        return runner.run(wanted, label, parts)

    def with_seeds(
        self, config: Config, mixtures: Sequence[Mixture], seeds: Sequence[int], proposer: str, label: str
    ) -> dict[str, list[Trial]]:
        """Train every mixture with every seed; return the trials with scores by mixture."""
        proposals = [Proposal(one.name, 0, one.weights, seed, proposer) for seed in seeds for one in mixtures]
        by_weights: dict[tuple[float, ...], dict[int, Trial]] = {}
        for trial in self.train(config, proposals, label):
            by_weights.setdefault(weights_key(trial.weights), {})[trial.seed] = trial
        return {one.name: list(by_weights.get(weights_key(one.weights), {}).values()) for one in mixtures}

    def clear(self) -> None:
        """Remove the tokens that were packed for targets: they are packed again when they are needed."""
        for folder in self.out.glob("tokens-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _packed_at(self, data: str) -> Path:
        return self.out / f"tokens-{data}"

    def _pack(self, config: Config, made: Path) -> None:
        """Pack the tokens that a target of these settings reads, and the tasks; what is whole stays."""
        if made.is_dir() and not _is_whole(made):
            shutil.rmtree(made)
        if made.is_dir():
            return
        partial = made.with_name(f"{made.name}.partial")
        partial.mkdir(exist_ok=True, parents=True)
        source = Source(
            read_units(self.root / "corpus", config.corpus, config.tokens.tokenizer),
            self.root / "labels",
            self.root / "domains",
            self.root / "clusters" / "tokenizer.json",
            config.corpus,
            folders_left_out(self.root, config),
        )
        pack_all(StageContext(partial, self.engine, self.progress, self.config.seed), source, config)
        workspace = Workspace(self.root)  # a file that changed while it was read is told at once
        stop_if_stale(workspace, self.config, {"corpus": current_recipes(workspace, self.config)["corpus"]})
        partial.rename(made)


def check_tokenizer(root: Path, target: Config) -> None:
    """Raise ConfigError when the target's checkpoint has other tokens than those that targets read, the workspace's."""
    if not target.proxy.checkpoint or target.objective.external:
        return
    checkpoint, ours = target.proxy.checkpoint, root / "tokens" / "tokenizer.json"
    theirs = find_checkpoint(checkpoint) / "tokenizer.json"
    if not same_ids(ours, theirs):
        raise ConfigError(
            f"the checkpoint {checkpoint} has another tokenizer than {ours}, which made the tokens that it would read",
            "name a checkpoint with that tokenizer; or set proxy.checkpoint to this one in climb.toml, so that all "
            f"tokens are its own, and climb run {root} --redo clusters",
        )


def _is_whole(tokens: Path) -> bool:
    """Return whether a folder of packed tokens has as many as were packed."""
    try:
        read_packed(tokens)
    except (InputError, WorkspaceError):
        return False
    return True
