"""What the page shows, read from the workspace's files; each part is absent when its stage is not done yet."""

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openclimb.clustering import similarity
from openclimb.clustering.prune_limits import PruneLimits, prune_limits
from openclimb.clustering.trust.result import trust_facts
from openclimb.config.load import from_dict, secrets_of
from openclimb.config.schema import Config
from openclimb.corpus.contamination import task_overlap
from openclimb.corpus.duplicates import duplicate_shares
from openclimb.corpus.left_out import finds_duplicates
from openclimb.masking import replaced
from openclimb.search.transfer.store import transfer_facts
from openclimb.workspace.files import read_json
from openclimb.workspace.records import STAGES
from openclimb.workspace.results import (
    MIXTURE,
    VALIDATION,
    Answer,
    Diagnostics,
    Validation,
    read_answer,
    read_diagnostics,
    read_validation,
)
from openclimb.workspace.tables import read_rows
from openclimb.workspace.trials import Trial, read_trials

MAP_POINTS = 1500  # sampled documents on the map; more would make the page slow on a phone
EXAMPLES = 2  # documents shown for each domain


@dataclass(frozen=True)
class Facts:
    """A workspace as the page tells it."""

    name: str
    settings: str  # the text of climb.toml, its secrets masked
    config: dict[str, Any]
    records: dict[str, dict[str, Any]]  # stage → record.json
    answer: Answer | None
    domains: list[dict[str, str]]  # rows of domains.csv
    clusters: list[dict[str, str]]  # rows of clusters.csv
    points: list[dict[str, Any]]  # sampled documents with a place on the map
    examples: dict[str, list[str]]  # domain → excerpts of documents near its centres
    trials: list[Trial] = field(default_factory=list)
    iterations: list[Diagnostics] = field(default_factory=list)
    train_seconds: float = 0.0
    validation: Validation | None = None
    overlap: list[dict[str, Any]] = field(default_factory=list)  # of each task's items with the corpus
    contamination: str = ""  # what is done with it: tasks.contamination
    duplicates: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by domain and by source
    dedup: str = ""  # what is looked for: corpus.dedup
    transfer: dict[str, Any] = field(default_factory=dict)  # what informs the search from another workspace
    trust: dict[str, Any] = field(default_factory=dict)  # how far the clusters can be trusted
    pruning: PruneLimits | None = None
    similarity: list[dict[str, str]] = field(default_factory=list)  # rows of similarity.csv: a domain with each task


def read_facts(root: Path) -> Facts:
    """Read everything the page shows. Files that are not there yet leave their part empty."""
    settings = (root / "climb.toml").read_text(encoding="utf-8")
    raw = tomllib.loads(settings)
    config = from_dict({name: value for name, value in raw.items() if name != "format"})
    records = {stage: found for stage in STAGES if (found := _json(root / stage / "record.json"))}
    clusters = _rows(root / "domains" / "clusters.csv")
    points = _points(root / "clusters" / "sample.parquet", clusters)
    data = records["tokens"]["fingerprint"] if "tokens" in records else ""
    return Facts(
        root.absolute().name,
        _masked(settings, config),
        raw,
        records,
        read_answer(root) if (root / MIXTURE).is_file() else None,
        _rows(root / "domains" / "domains.csv"),
        clusters,
        [point for point in points if point["x"] == point["x"]][:MAP_POINTS],
        _examples(points),
        read_trials(root / "trials", data),
        read_diagnostics(root),
        sum(_json(path).get("seconds", 0.0) for path in root.glob("trials/*/scores.json")),
        read_validation(root) if (root / VALIDATION).is_file() else None,
        task_overlap(root) if (how := config.tasks.contamination) != "off" else [],
        how,
        duplicate_shares(root) if finds_duplicates(config) else {},
        config.corpus.dedup,
        transfer_facts(root),
        trust_facts(root),
        prune_limits(root),
        _rows(root / "tokens" / similarity.FILE),
    )


def _masked(settings: str, config: Config) -> str:
    """Return the text of climb.toml with its secrets masked, also where they stand as TOML escapes them."""
    return replaced(settings, [form for each in secrets_of(config) for form in (json.dumps(each)[1:-1], each)])


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(path) if path.is_file() else {}
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    return read_rows(path) if path.is_file() else []


def _points(path: Path, clusters: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Return the sampled documents with their domain, nearest to their centroid first within the hash order given."""
    if not path.is_file() or not clusters:
        return []
    import pyarrow.parquet as pq

    domain_of = {row["cluster"]: row["domain"] for row in clusters}
    columns = ["cluster", "source", "distance", "excerpt", "x", "y"]
    rows: list[dict[str, Any]] = pq.read_table(path, columns=columns).to_pylist()
    for row in rows:
        row["domain"] = domain_of.get(str(row["cluster"]) if row["cluster"] >= 0 else row["source"], "")
    return rows


def _examples(points: list[dict[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for point in sorted(points, key=lambda point: float(point["distance"])):
        texts = found.setdefault(point["domain"], [])
        excerpt = " ".join(point["excerpt"].split())
        if len(texts) < EXAMPLES and len(excerpt) > 60 and excerpt[:60] not in {text[:60] for text in texts}:
            texts.append(excerpt)
    return found
