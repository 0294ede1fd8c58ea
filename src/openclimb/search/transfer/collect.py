"""What a new workspace takes from an old one: `climb init NEW --from OLD` writes it to `transfer/` (see store.py).

Reads OLD: its settings, domains, trials with scores, answer, and of its documents the hash and domain; never the text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from openclimb.config.schema import Config
from openclimb.corpus.custom_domains import SETTING, has_custom_domains, read_custom
from openclimb.corpus.domains import read_domains
from openclimb.errors import ConfigError, SearchError, WorkspaceError
from openclimb.mixture import Domain, Weights
from openclimb.search.acquisition.spec import spec_of
from openclimb.search.propose import finalists
from openclimb.search.transfer.carry import OldTrial, TransferSpace
from openclimb.search.transfer.domain_map import by_names, read_map
from openclimb.search.transfer.store import (
    SCORE,
    WEIGHT,
    TransferSource,
    clusters,
    documents,
    embedder,
    radius,
    read_source,
    search_space,
    stop_if_apart,
)
from openclimb.workspace.files import atomic, file_checksum, fingerprint, read_json, write_json, write_text
from openclimb.workspace.observations import observed
from openclimb.workspace.records import FORMAT, TRANSFER, Workspace, trial_settings
from openclimb.workspace.results import MIXTURE, read_answer
from openclimb.workspace.tables import csv_text
from openclimb.workspace.trials import Trial, read_trials

MOST_DOCUMENTS = 1_000_000  # of a larger corpus so many, by the hash of their text, stand for all


def collect(old: Path, config: Config, new_domains: Sequence[Domain] = (), given: Path | None = None) -> "Collected":
    """Return what the workspace `old` knows, for a new one with these settings.

    `new_domains` are those given by hand, `given` a table old,new,share. Raises WorkspaceError when `old` is no
    workspace, SearchError when none of its trials has scores, ConfigError when its metric is another, InputError for
    the table, DomainError when the two have no domain in common.
    """
    before = Workspace(old).config()
    if before.tasks.metric != config.tasks.metric:
        raise ConfigError(
            f"the scores in {old} are {before.tasks.metric}, and the new search asks for {config.tasks.metric}",
            f"--set tasks.metric={before.tasks.metric}, or start without --from",
        )
    domains = _old_domains(old, before)
    completed = _told(old, [domain.name for domain in domains])
    answer = _answer(old, before, domains, completed)
    trials = [*_own(old, domains, completed), *_older(old, before, domains)]
    record = {
        "format": FORMAT,
        "source": old.absolute().name,
        "documents": not has_custom_domains(before),
        "share": 1,
        "metric": before.tasks.metric,
        "trials": len(trials),
        "tasks": sorted({task for trial in trials for task in trial.scores}),
        "embedder": embedder(old, before),
        "radius": radius(old),
        "differs": _differences(trial_settings(before), trial_settings(config)),
    }
    source = TransferSource(tuple(domains), answer, tuple(trials), record)
    table = read_map(given, source.names, [domain.name for domain in new_domains]) if given else None
    if new_domains:
        stop_if_apart(by_names(domains, new_domains, table), source)
    return Collected(old, source, given)


@dataclass(frozen=True)
class Collected:
    """What `gather` found, to be written into the new workspace."""

    old: Path
    source: TransferSource
    given: Path | None

    def write(self, root: Path) -> None:
        """Write `transfer/`, its record last. What an earlier attempt left there is moved aside."""
        Workspace(root).set_aside(TRANSFER)
        folder = root / TRANSFER
        write_text(folder / "domains.csv", _domains_table(self.source))
        write_text(folder / "trials.csv", _trials_table(self.source))
        if self.given:
            write_text(folder / "given.csv", self.given.read_text(encoding="utf-8-sig"))
        record = dict(self.source.record)
        if record["documents"]:
            record["share"] = _write_documents(self.old, folder)
            _write_clusters(self.old, folder)
        files = {path.name: file_checksum(path) for path in sorted(folder.iterdir()) if path.name[0] != "."}
        write_json(folder / "record.json", {**record, "files": files, "fingerprint": fingerprint([record, files])})

    def sentences(self) -> list[str]:
        """Return what a user should know at once."""
        record = self.source.record
        said = [f"{record['trials']} trials of {record['source']} will inform the search"]
        if record["differs"]:
            said.append(f"note: they were trained otherwise ({'; '.join(record['differs'])}); only their shape counts")
        return said


def given_table(old: Path, config: Config) -> Path:
    """Return the table of domains that were given by hand. Raises WorkspaceError when it lies elsewhere."""
    table = (old / config.corpus.domains.removeprefix("file:")).resolve()
    if not table.is_relative_to(old.resolve()):
        raise WorkspaceError(
            f'{old} has its domains outside of its folder: corpus.domains = "{config.corpus.domains}"',
            f'copy the table into it and set corpus.domains = "{SETTING}"',
        )
    return table


def _old_domains(old: Path, config: Config) -> list[Domain]:
    if has_custom_domains(config):
        return read_custom(given_table(old, config), config.target)
    if not (old / "domains" / "record.json").is_file():
        raise _nothing_told(old)
    return read_domains(old / "domains")


def _told(old: Path, names: Sequence[str]) -> list[Trial]:
    """Return the trials over the present domains that have scores; where the data changed, those of the last."""
    completed = [trial for trial in read_trials(old / "trials") if trial.scores and set(trial.domains) == set(names)]
    if not completed:
        raise _nothing_told(old)
    return [trial for trial in completed if trial.data == completed[-1].data]


def _nothing_told(old: Path) -> SearchError:
    return SearchError(
        f"{old} has no trial with scores over its present domains, so there is nothing to start from",
        f"run it first (`climb run {old}`, or ask and tell), or start without --from",
    )


def _answer(old: Path, config: Config, domains: Sequence[Domain], completed: Sequence[Trial]) -> Weights:
    """Return the old answer (n_old,): the selected one, or what its trials speak for so far."""
    if (old / MIXTURE.parent / "record.json").is_file():
        weight = read_answer(old).weights
        if set(weight) == {domain.name for domain in domains}:
            return np.array([weight[domain.name] for domain in domains])
    found = finalists(observed(completed), spec_of(config, domains), 1, config.seed)
    return np.array(found[0][1])


def _own(old: Path, domains: Sequence[Domain], completed: Sequence[Trial]) -> list[OldTrial]:
    return [
        OldTrial(
            old.absolute().name,
            trial.number,
            trial.seed,
            tuple(trial.mixture.as_dict()[domain.name] for domain in domains),
            {task: score for task, score in trial.scores.items() if np.isfinite(score)},
        )
        for trial in completed
    ]


def _older(old: Path, config: Config, domains: Sequence[Domain]) -> list[OldTrial]:
    """Return the trials that informed the old search itself, over its domains."""
    if read_source(old) is None:
        return []
    space = search_space(
        old, replace(config, search=replace(config.search, transfer="free", low_fidelity="")), domains, {}
    )
    assert isinstance(space, TransferSpace)
    found = []
    rows = zip(space.old, space.sources, space.blurred, strict=True)
    for number, (trial, source, blurred) in enumerate(rows, 1):
        row = np.array(trial.weights)[: len(domains)]
        if row.sum() > 0:
            more = 1.0 - (1.0 - blurred) * float(row.sum())
            weights = tuple((row / row.sum()).tolist())
            found.append(OldTrial(f"{source}, before", number, trial.seed, weights, trial.scores, more))
    return found


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = [(key, before.get(key, "none"), now.get(key, "none")) for key in sorted({*before, *now})]
    return [f"{key}: {then} then, {today} now" for key, then, today in found if then != today]


def _write_documents(old: Path, folder: Path) -> int:
    """Write the sample of OLD's documents; return of how many hashes one is kept."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    n = int(read_json(old / "labels" / "record.json")["facts"]["documents"])
    share = max(1, -(-n // MOST_DOCUMENTS))
    found = documents(old, share).distinct()
    table = pa.table({"hash": found.hashes, "domain": found.domains, "tokens": found.tokens})
    with atomic(folder / "documents.parquet") as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return share


def _write_clusters(old: Path, folder: Path) -> None:
    if not (old / "clusters" / "centroids.npy").is_file():
        return
    found = clusters(old)
    with atomic(folder / "clusters.npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, centroids=found.centroids, domains=found.domains, tokens=found.tokens)


def _domains_table(source: TransferSource) -> str:
    rows = zip(source.domains, source.answer.tolist(), strict=True)
    return csv_text(("name", "tokens", "weight"), [(domain.name, domain.n_tokens, weight) for domain, weight in rows])


def _trials_table(source: TransferSource) -> str:
    tasks = source.record["tasks"]
    head = (
        "source",
        "trial",
        "seed",
        "blurred",
        *(WEIGHT + name for name in source.names),
        *(SCORE + t for t in tasks),
    )
    rows = [
        (one.source, one.number, one.seed, one.blurred, *one.weights, *(one.scores.get(task, "") for task in tasks))
        for one in source.trials
    ]
    return csv_text(head, rows)
