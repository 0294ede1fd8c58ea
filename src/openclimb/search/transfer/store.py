"""What a workspace knows from another one: the old trials, the old domains, and how these stand to its own.

`climb init NEW --from OLD` collects it from OLD into `transfer/` (collect.py), after which OLD may vanish:

  domains.csv        an old domain a row: name, tokens, weight in the old answer
  trials.csv         an old trial a row: where it was told, its seed, weights, scores
  documents.parquet  hash, domain and tokens of old documents (a sample by hash of more than MOST_DOCUMENTS)
  clusters.npz       old centroids with their domains and tokens, where clusters were fitted
  given.csv          old,new,share by hand, where it was given
  record.json        written last: OLD's name, metric, proxy and embedder; checksums

The map of domains follows when the new domains are made: `map.csv` (old, new, share) and `map.json` (made from what).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openclimb.config.load import recorded_settings
from openclimb.config.schema import Config
from openclimb.corpus.custom_domains import has_custom_domains
from openclimb.corpus.domains import read_assignment, read_assignment_column
from openclimb.corpus.labels import read_labels
from openclimb.errors import DomainError, SearchError
from openclimb.mixture import Domain, Weights
from openclimb.search.acquisition.spec import SearchSpec, spec_of
from openclimb.search.predictors.low_fidelity_store import low_fidelity
from openclimb.search.space.search_space import SearchSpace
from openclimb.search.transfer.carry import OldTrial, TransferSpace, transfer_space
from openclimb.search.transfer.domain_map import (
    Clusters,
    Documents,
    DomainMap,
    by_centroids,
    by_documents,
    by_names,
    map_table,
    read_map,
    read_table,
)
from openclimb.tasks.items import reported, task_files
from openclimb.workspace.files import fingerprint, read_json, write_json, write_text
from openclimb.workspace.records import TRANSFER
from openclimb.workspace.tables import read_rows

LEAST_SHARED = 0.05  # of the old tokens; with fewer in common documents say too little, and centroids are asked
WEIGHT, SCORE = "weight: ", "score: "  # begin the columns of trials.csv


@dataclass(frozen=True)
class TransferSource:
    """What was collected from another workspace."""

    domains: tuple[Domain, ...]
    answer: Weights  # (n_old,): the mixture that the old trials spoke for
    trials: tuple[OldTrial, ...]
    record: Mapping[str, Any]

    @property
    def names(self) -> list[str]:
        """The old domains' names."""
        return [domain.name for domain in self.domains]


def read_source(root: Path) -> TransferSource | None:
    """Return what a workspace took from another one; None where it took nothing."""
    folder = root / TRANSFER
    if not (folder / "record.json").is_file():
        return None
    record = read_json(folder / "record.json")
    rows = read_rows(folder / "domains.csv")
    domains = tuple(Domain(row["name"], int(row["tokens"])) for row in rows)
    answer = np.array([float(row["weight"]) for row in rows])
    trials = tuple(_old_trial(row, [domain.name for domain in domains]) for row in read_rows(folder / "trials.csv"))
    return TransferSource(domains, answer, trials, record)


def search_space(
    root: Path, config: Config, domains: Sequence[Domain], task_weights: Mapping[str, float]
) -> SearchSpace:
    """Return what a workspace's search weighs and knows before its first trial: old trials, low-fidelity scores.

    Raises DomainError when the old domains have no part in the new ones, SearchError when no task is in common.
    """
    spec, source = spec_of(config, domains, task_weights), read_source(root)
    space = SearchSpace(tuple(domains), spec) if source is None else _transferred(root, config, spec, source)
    return space.with_low_fidelity(low_fidelity(root, config, domains))


def _transferred(root: Path, config: Config, spec: SearchSpec, source: TransferSource) -> TransferSpace:
    named = (*config.tasks.weights, *config.tasks.thresholds)
    tasks: tuple[str, ...] = ()
    if config.tasks.paths:
        tasks = tuple(sorted(set(task_files(config.tasks)) - set(reported(config.tasks))))
        if not set(tasks) & set(source.record["tasks"]):
            raise SearchError(
                f"the trials of {source.record['source']} have none of this search's tasks: {', '.join(tasks)}",
                f"theirs are: {', '.join(source.record['tasks'])}; start a workspace without --from",
            )
    made = domain_map(root, config, spec.domains, source)
    space = transfer_space(source.trials, made, source.answer, spec, config.search.transfer, named, tasks)
    return space.described_as(transfer_sentence(transfer_facts(root)))


def domain_map(root: Path, config: Config, domains: Sequence[Domain], source: TransferSource) -> DomainMap:
    """Return how the old domains stand to the new ones; made once for the new domains and kept in `transfer/`."""
    folder, names = root / TRANSFER, [domain.name for domain in domains]
    stage = root / "domains" / "record.json"
    of = read_json(stage)["fingerprint"] if stage.is_file() else fingerprint([[d.name, d.n_tokens] for d in domains])
    of = fingerprint([of, source.record["fingerprint"]])
    if (folder / "map.json").is_file() and read_json(folder / "map.json")["of"] == of:
        return read_table(folder / "map.csv", source.names, names)
    made, how, shared = _make_map(root, config, domains, source)
    stop_if_apart(made, source)
    write_text(folder / "map.csv", map_table(made))
    old = [source.names[i] for i in np.flatnonzero(made.forward.sum(1) <= 0)]
    new = [names[j] for j in np.flatnonzero(made.backward.sum(1) <= 0)]
    facts = {"of": of, "by": how, "shared": shared, "untouched": len(made.untouched), "gone": old, "added": new}
    write_json(folder / "map.json", facts)
    return made


def transfer_facts(root: Path) -> dict[str, Any]:
    """Return what `plan`, `status`, `best` and the report say of the old trials: {} where there are none."""
    folder = root / TRANSFER
    if not (folder / "record.json").is_file():
        return {}
    record = read_json(folder / "record.json")
    found = {name: record[name] for name in ("source", "trials", "tasks", "differs")}
    return {**found, "map": read_json(folder / "map.json") if (folder / "map.json").is_file() else None}


def transfer_sentence(facts: Mapping[str, Any]) -> str:
    """Return those facts in plain words."""
    said = f"{facts['trials']} old trials of {facts['source']} inform the search"
    made = facts["map"]
    if made is None:
        return f"{said}; their domains are mapped when the new ones are made"
    how = {"documents": "shared documents", "centroids": "nearest centroids", "names": "name"}[made["by"]]
    parts = [f"their domains are mapped by {how}"]
    if made["by"] == "documents":
        parts.append(f"{made['shared']:.0%} of their tokens are here")
    parts.append(f"{made['untouched']} untouched")
    parts += [f"{what}: {', '.join(made[what])}" for what in ("gone", "added") if made[what]]
    return f"{said}; {'; '.join(parts)}"


def _make_map(
    root: Path, config: Config, domains: Sequence[Domain], source: TransferSource
) -> tuple[DomainMap, str, float | None]:
    """Return the map, what it was made by, and the share of the old tokens that the new domains hold."""
    names = [domain.name for domain in domains]
    if has_custom_domains(config) or not source.record["documents"]:
        given = root / TRANSFER / "given.csv"
        table = read_map(given, source.names, names) if given.is_file() else None
        return by_names(source.domains, domains, table), "names", None
    new = documents(root, source.record["share"])
    made, shared = by_documents(_read_documents(root / TRANSFER), new, source.names, names)
    if shared >= LEAST_SHARED:
        return made, "documents", shared
    kept = root / TRANSFER / "clusters.npz"
    if not kept.is_file() or not source.record["embedder"] or source.record["embedder"] != embedder(root, config):
        raise DomainError(
            f"{shared:.1%} of the tokens of {source.record['source']} are in this corpus, and centroids cannot stand "
            "in: the two have not the same pretrained embedder",
            "give its documents as well, use its [embed] settings with a pretrained model, or start without --from",
        )
    with np.load(kept, allow_pickle=False) as arrays:
        old = Clusters(arrays["centroids"], arrays["domains"], arrays["tokens"])
    reach = max(float(source.record["radius"]), radius(root))
    return by_centroids(old, clusters(root), reach, source.names, names), "centroids", shared


def stop_if_apart(made: DomainMap, source: TransferSource) -> None:
    if not made.forward.any():
        raise DomainError(
            f"none of the domains of {source.record['source']} has a part in the new ones: {', '.join(made.old)}",
            "say which are which with --map FILE (columns old,new,share), or start without --from",
        )


def embedder(root: Path, config: Config) -> list[Any]:
    """Return what two workspaces with one embedder share; [] where it was fitted on the corpus, or there is none."""
    record = root / "clusters" / "record.json"
    if (
        config.embed.embedder == "hashing"
        or not record.is_file()
        or not (root / "clusters" / "centroids.npy").is_file()
    ):
        return []
    settings = recorded_settings(config.embed)
    used = {name: settings[name] for name in ("embedder", "model")}
    return [used, read_json(record)["inputs"].get("embedder_model", "")]


def radius(root: Path) -> float:
    """Return how far documents lie from their own centroid: the root of the mean squared distance."""
    path = root / "clusters" / "fit.json"
    return float(np.sqrt(read_json(path).get("inertia", 0.0))) if path.is_file() else 0.0


def documents(root: Path, share: int) -> Documents:
    """Return the labelled documents whose hash is a multiple of `share`, with their domains."""
    assign = read_assignment(root / "domains")
    columns = ["hash", "tokens", read_assignment_column(root / "domains")]
    parts = []
    for _, table in read_labels(root / "labels", columns):
        hashes = table["hash"].to_numpy()
        kept = hashes % np.uint64(share) == 0
        parts.append((hashes[kept], assign(table)[kept], table["tokens"].to_numpy()[kept].astype(np.int64)))
    hashes, domains, tokens = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Documents(hashes, domains.astype(np.int32), tokens)


def _read_documents(folder: Path) -> Documents:
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "documents.parquet")
    return Documents(*(table[name].to_numpy() for name in ("hash", "domain", "tokens")))


def clusters(root: Path) -> Clusters:
    centroids = np.load(root / "clusters" / "centroids.npy", allow_pickle=False)
    domains = np.load(root / "domains" / "assignment.npy", allow_pickle=False)
    tokens = [int(row["tokens"]) for row in read_rows(root / "domains" / "clusters.csv")]
    return Clusters(centroids, domains, np.array(tokens, dtype=np.int64))


def _old_trial(row: Mapping[str, str], names: Sequence[str]) -> OldTrial:
    scores = {name.removeprefix(SCORE): float(cell) for name, cell in row.items() if name.startswith(SCORE) and cell}
    weights = tuple(float(row[WEIGHT + name]) for name in names)
    return OldTrial(row["source"], int(row["trial"]), int(row["seed"]), weights, scores, float(row["blurred"]))
