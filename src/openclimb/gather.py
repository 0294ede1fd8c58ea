"""What a new workspace takes from an old one: `climb init NEW --from OLD` writes it to `prior/` (see prior.py).

Reads OLD: its settings, domains, trials with scores, answer, and of its documents the hash and domain; never the text.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from openclimb.corpus.domains_file import read_domains
from openclimb.errors import ConfigError, SearchError, WorkspaceError
from openclimb.given import SETTING, has_given_domains, read_given
from openclimb.mixture import Domain, Weights
from openclimb.prior import (
    SCORE,
    WEIGHT,
    Prior,
    clusters,
    documents,
    embedder,
    radius,
    read_prior,
    reuse_for,
    stop_if_apart,
)
from openclimb.search.domain_map import by_names, read_map
from openclimb.search.loop import finalists
from openclimb.search.required import required_of
from openclimb.search.reuse import OldTrial
from openclimb.settings import Config, PickSettings
from openclimb.stages import PRIOR, trial_settings
from openclimb.trials import Trial, read_trials
from openclimb.workspace import (
    FORMAT,
    Workspace,
    atomic,
    file_checksum,
    fingerprint,
    read_json,
    write_json,
    write_text,
)

MOST_DOCUMENTS = 1_000_000  # of a larger corpus so many, by the hash of their text, stand for all


def gather(old: Path, config: Config, new_domains: Sequence[Domain] = (), given: Path | None = None) -> "Gathered":
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
    told = _told(old, [domain.name for domain in domains])
    answer = _answer(old, before, domains, told)
    trials = [*_own(old, domains, told), *_older(old, before, domains)]
    record = {
        "format": FORMAT,
        "source": old.absolute().name,
        "documents": not has_given_domains(before),
        "share": 1,
        "metric": before.tasks.metric,
        "trials": len(trials),
        "tasks": sorted({task for trial in trials for task in trial.scores}),
        "embedder": embedder(old, before),
        "radius": radius(old),
        "differs": _differences(trial_settings(before), trial_settings(config)),
    }
    prior = Prior(tuple(domains), answer, tuple(trials), record)
    table = read_map(given, prior.names, [domain.name for domain in new_domains]) if given else None
    if new_domains:
        stop_if_apart(by_names(domains, new_domains, table), prior)
    return Gathered(old, prior, given)


@dataclass(frozen=True)
class Gathered:
    """What `gather` found, to be written into the new workspace."""

    old: Path
    prior: Prior
    given: Path | None

    def write(self, root: Path) -> None:
        """Write `prior/`, its record last. What an earlier attempt left there is moved aside."""
        Workspace(root).set_aside(PRIOR)
        folder = root / PRIOR
        write_text(folder / "domains.csv", _domains_table(self.prior))
        write_text(folder / "trials.csv", _trials_table(self.prior))
        if self.given:
            write_text(folder / "given.csv", self.given.read_text(encoding="utf-8-sig"))
        record = dict(self.prior.record)
        if record["documents"]:
            record["share"] = _write_documents(self.old, folder)
            _write_clusters(self.old, folder)
        files = {path.name: file_checksum(path) for path in sorted(folder.iterdir()) if path.name[0] != "."}
        write_json(folder / "record.json", {**record, "files": files, "fingerprint": fingerprint([record, files])})

    def sentences(self) -> list[str]:
        """Return what a user should know at once."""
        record = self.prior.record
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
    if has_given_domains(config):
        return read_given(given_table(old, config), config.target)
    if not (old / "domains" / "record.json").is_file():
        raise _nothing_told(old)
    return read_domains(old / "domains")


def _told(old: Path, names: Sequence[str]) -> list[Trial]:
    """Return the trials over the present domains that have scores; where the data changed, those of the last."""
    told = [trial for trial in read_trials(old / "trials") if trial.scores and set(trial.domains) == set(names)]
    if not told:
        raise _nothing_told(old)
    return [trial for trial in told if trial.data == told[-1].data]


def _nothing_told(old: Path) -> SearchError:
    return SearchError(
        f"{old} has no trial with scores over its present domains, so there is nothing to start from",
        f"run it first (`climb run {old}`, or ask and tell), or start without --from",
    )


def _answer(old: Path, config: Config, domains: Sequence[Domain], told: Sequence[Trial]) -> Weights:
    """Return the old answer (n_old,): the picked one, or what its trials speak for so far."""
    path = old / "mixture" / "mixture.json"
    if (path.parent / "record.json").is_file():
        weight = {row["name"]: float(row["weight"]) for row in read_json(path)["domains"]}
        if set(weight) == {domain.name for domain in domains}:
            return np.array([weight[domain.name] for domain in domains])
    required = required_of(config)
    goal = required.task_weights(config.tasks.weights)
    one = PickSettings(finalists=1)
    return np.array(finalists(told, domains, config.search, one, goal, config.seed, required)[0][1])


def _own(old: Path, domains: Sequence[Domain], told: Sequence[Trial]) -> list[OldTrial]:
    return [
        OldTrial(
            old.absolute().name,
            trial.number,
            trial.seed,
            tuple(trial.mixture.as_dict()[domain.name] for domain in domains),
            {task: score for task, score in trial.scores.items() if np.isfinite(score)},
        )
        for trial in told
    ]


def _older(old: Path, config: Config, domains: Sequence[Domain]) -> list[OldTrial]:
    """Return the trials that informed the old search itself, over its domains."""
    if read_prior(old) is None:
        return []
    reuse = reuse_for(old, replace(config, search=replace(config.search, reuse="free")), domains)
    found = []
    for trial, source, blurred in zip(reuse.old, reuse.sources, reuse.blurred, strict=True):
        row = np.array(trial.weights)[: len(domains)]
        if row.sum() > 0:
            more = 1.0 - (1.0 - blurred) * float(row.sum())
            found.append(
                OldTrial(f"{source}, before", -trial.number, trial.seed, tuple(row / row.sum()), trial.scores, more)
            )
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


def _domains_table(prior: Prior) -> str:
    rows = zip(prior.domains, prior.answer.tolist(), strict=True)
    return _table(("name", "tokens", "weight"), [(domain.name, domain.n_tokens, weight) for domain, weight in rows])


def _trials_table(prior: Prior) -> str:
    tasks = prior.record["tasks"]
    head = ("source", "trial", "seed", "blurred", *(WEIGHT + name for name in prior.names), *(SCORE + t for t in tasks))
    rows = [
        (one.source, one.number, one.seed, one.blurred, *one.weights, *(one.scores.get(task, "") for task in tasks))
        for one in prior.trials
    ]
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([head, *rows])
    return out.getvalue()
