"""What an export wrote, in numbers: the card, mixture.json, the record and the blend files say these."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openclimb.workspace.files import file_names

SHARD_BYTES = 128_000_000  # of text in a shard
TOKENIZER = "tokenizer/tokenizer.json"  # whose tokens count
TOLERANCE = 0.001  # of a realised share against the one asked for


@dataclass(frozen=True)
class ExportSpec:
    """What is asked of an export."""

    token_budget: int  # in the tokens of `tokenizer`; with `by_cluster`, of the training that reads it
    format: str = "parquet"
    by_domain: bool = False  # each shard holds one domain, in place of the mixture
    by_cluster: bool = False  # each kept document once, with its labels, a folder a domain, in place of the mixture
    tokenizer: str = ""  # path of a tokenizer.json; the workspace's own when empty
    seed: int | None = None  # of the documents' order; the workspace's when None
    shard_bytes: int = SHARD_BYTES  # of text in a shard


@dataclass(frozen=True)
class Sizes:
    """What is known of the domains before they are written; arrays (n_domains,)."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    caps: tuple[float, ...]
    n_tokens: NDArray[np.float64]  # of all documents, held-out ones too, in the tokens that count


def folders_of(names: Sequence[str]) -> list[str]:
    """Return the folder of each domain, where each has one; none is "default", which the card calls all of them."""
    return file_names(names, ("default",))


def describe(
    sizes: Sizes,
    written: Sequence[dict[str, Any]],
    spec: ExportSpec,
    tokenizer: dict[str, Any],
    counted: bool,
    labels: Sequence[str],
) -> dict[str, Any]:
    """Return what was written, and how near its shares are to the mixture's.

    `written`: what each shard holds; `counted`: whether tokens were counted, or are the labels' estimates;
    `labels`: what each row keeps of the labels.
    """
    tokens = np.sum([row["tokens"] for row in written], axis=0)
    documents = np.sum([row["documents"] for row in written], axis=0)
    copies = np.max([row["copies"] for row in written], axis=0)
    realised = tokens / max(1, tokens.sum())
    natural = sizes.n_tokens / sizes.n_tokens.sum()
    read = np.array(sizes.weights) * spec.token_budget if spec.by_cluster else tokens
    once = tokens if spec.by_cluster else sizes.n_tokens
    rows = [
        {
            "name": name,
            "weight": float(sizes.weights[d]),
            "realised": float(realised[d]),
            "natural": float(natural[d]),
            "cap": sizes.caps[d],
            "tokens": int(tokens[d]),
            "documents": int(documents[d]),
            "repetitions": float(read[d] / max(1.0, once[d])),
            "copies": int(copies[d]),
        }
        for d, name in enumerate(sizes.names)
    ]
    if spec.by_domain or spec.by_cluster:
        for row, folder in zip(rows, folders_of(sizes.names), strict=True):
            own = [note for note in written if note["file"].startswith(f"{folder}/")]
            row |= {"folder": folder, "text_bytes": sum(note["bytes"] for note in own)}
    difference = float(np.abs(realised - np.asarray(sizes.weights)).max())
    return {
        "token_budget": spec.token_budget,
        "format": spec.format,
        "by_domain": spec.by_domain,
        "by_cluster": spec.by_cluster,
        "counted": counted,
        "labels": list(labels),
        "tokenizer": {"own": not spec.tokenizer, **tokenizer},
        "tokens": int(tokens.sum()),
        "documents": int(documents.sum()),
        "shards": [row["file"] for row in written if sum(row["documents"])],
        "text_bytes": sum(row["bytes"] for row in written),
        "largest_difference": difference,
        "within_tolerance": difference <= TOLERANCE,
        "domains": rows,
    }


def shares_of(facts: dict[str, Any], written: Sequence[dict[str, Any]]) -> list[float]:
    """Return with which probability a trainer draws from each shard: they sum to 1.

    Of shards of one domain each, the domain's weight times the shard's share of it; else the shard's share of all.
    """
    if not (facts["by_domain"] or facts["by_cluster"]):
        return [sum(note["tokens"]) / max(1, facts["tokens"]) for note in written]
    shares = []
    for note in written:
        d = int(np.argmax(note["tokens"]))
        row = facts["domains"][d]
        shares.append(row["weight"] * note["tokens"][d] / max(1, row["tokens"]))
    return [share / max(1e-300, sum(shares)) for share in shares]
