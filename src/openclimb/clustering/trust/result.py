"""How far clusters can be trusted, as `clusters/trust.json` has it, and what is said of it.

The limits of the warnings are between what good clusters and planted bad ones measure (`bench/clusters.py`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openclimb.printable import one_line
from openclimb.workspace.files import write_json
from openclimb.workspace.results import read_result

FILE = Path("clusters/trust.json")
CHANCE = 1 / 3  # of finding the odd one of three
LARGEST = 0.5  # of the documents in one cluster: more is warned
AGREEMENT = 0.4  # adjusted mutual information of two halves: less is warned
INTRUDER = 0.6  # of the odd ones are found: less is warned
UNKNOWN = 0.1  # of the documents have hardly a known word: more is warned
HOME = 0.5  # of a script's documents in one cluster, and
OWN = 0.8  # of that cluster of this script, or less: the embedder puts the script together with another


@dataclass(frozen=True)
class Intruder:
    """Of triples of two documents of a cluster and one of another: how often the other one is the least similar.

    `low`, `high`: Wilson's 95 % interval. `loosest`: the cluster with the lowest rate of those with enough triples.
    """

    rate: float
    low: float
    high: float
    triples: int
    loosest: int | None
    loosest_rate: float | None


@dataclass(frozen=True)
class Spread:
    """Documents of one kind, and how they lie: `share` of all, `clusters`: exp of the entropy over clusters.

    `home`: the cluster with most of them; `in_home`: the part of them that lies in it; `of_home`: the part of that
    cluster that they are.
    """

    name: str
    documents: int
    share: float
    clusters: float
    home: int
    in_home: float
    of_home: float


@dataclass(frozen=True)
class Trust:
    """What the sample says of its clusters. `smallest`, `largest`: shares of the documents.

    `agreement`: adjusted mutual information of the clusterings of two halves of `halves` documents, None where these
    are too few. `looked_at`: documents of which the rest is told. `unknown`: those with hardly a word that the embedder
    knows, None where its vocabulary cannot be read. `scripts`: by share, those of some documents.
    """

    clusters: int
    smallest: float
    largest: float
    agreement: float | None
    halves: int
    looked_at: int
    intruder: Intruder | None
    unknown: Spread | None
    scripts: list[Spread]


def write_trust(folder: Path, trust: Trust) -> None:
    """Write trust.json into a folder."""
    write_json(folder / FILE.name, asdict(trust))


def read_trust(root: Path) -> Trust | None:
    """Return what a workspace has of it; None where its clusters were made without, or it has none."""
    return read_result(root / FILE, Trust) if (root / FILE).is_file() else None


def trust_facts(root: Path) -> dict[str, Any]:
    """Return what is said of the clusters of a workspace: sentence, warnings and the measures; {} where nothing is."""
    trust = read_trust(root)
    if not trust:
        return {}
    return {"sentence": trust_sentence(trust), "warnings": trust_warnings(trust), **asdict(trust)}


def trust_sentence(trust: Trust) -> str:
    """Return the measures in one sentence."""
    parts = [f"{trust.clusters} with {trust.smallest:.1%} to {trust.largest:.1%} of the documents"]
    if trust.agreement is not None:
        parts.append(f"two halves of the sample agree to {trust.agreement:.2f} (adjusted mutual information)")
    if trust.intruder:
        parts.append(f"the odd one of three is found in {trust.intruder.rate:.0%} (chance: {CHANCE:.0%})")
    if trust.unknown:
        parts.append(f"{trust.unknown.share:.1%} of the documents have hardly a known word")
    return "; ".join(parts)


def trust_warnings(trust: Trust) -> list[str]:
    """Return what is poor, a sentence each, with what may help; [] where nothing is."""
    found = []
    if trust.largest > LARGEST:
        found.append(
            f"one cluster holds {trust.largest:.0%} of the documents: a mixture can weigh it only as a whole; raise "
            "clusters.k, or use another embedder"
        )
    if trust.agreement is not None and trust.agreement < AGREEMENT:
        found.append(
            f"clusters of two halves of the sample agree to {trust.agreement:.2f} only: others would come of another "
            "sample; lower clusters.k, or raise clusters.sample"
        )
    if trust.intruder and trust.intruder.high < INTRUDER:
        found.append(
            f"the odd one of three documents is found in {trust.intruder.rate:.0%} (chance: {CHANCE:.0%}): documents "
            "of one cluster are hardly alike; use another embedder"
        )
    if trust.unknown and trust.unknown.share > UNKNOWN:
        found.append(
            f"{trust.unknown.share:.0%} of the documents have hardly a word that the embedder knows, and "
            f"{trust.unknown.in_home:.0%} of these lie in one cluster; use an embedder of their languages"
        )
    if strange := _mixed(trust.scripts):
        named = ", ".join(f"{one_line(one.name)} ({one.share:.1%})" for one in strange)
        found.append(
            f"most documents of a script lie in one cluster, which they share with others: {named}; use an embedder of "
            "these languages"
        )
    return found


def _mixed(scripts: Sequence[Spread]) -> list[Spread]:
    """Return the scripts, but for the most frequent, of which one cluster holds most documents, and others too."""
    return [one for one in scripts[1:] if one.in_home >= HOME and one.of_home < OWN]
