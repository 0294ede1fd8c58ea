"""What other trainers read of an exported dataset: the dataset card, and Megatron's --data-path."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from openclimb.config import format_count
from openclimb.console import counted
from openclimb.settings import Config

SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
LARGER = ((10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**12, "n>1B"))


def megatron_line(domains: Sequence[Mapping[str, Any]]) -> str:
    """Return the --data-path argument for a trainer that holds each domain, tokenised, as a file of its own.

    PREFIX stands for the folder of those files; a domain's name is made safe for a shell and a path.
    """
    pairs = [f"{row['weight']:.6f} PREFIX/{_plain(row['name'])}_text_document" for row in domains if row["weight"] > 0]
    return "--data-path " + " ".join(pairs) + "\n"


def dataset_card(facts: Mapping[str, Any], answer: Mapping[str, Any], config: Config, format: str) -> str:
    """Return README.md: a card that `datasets.load_dataset` reads, and that tells people what this is."""
    suffix = "parquet" if format == "parquet" else "jsonl.zst"
    size = next(name for most, name in (*SIZES, *LARGER) if facts["documents"] < most)
    head = {
        "tags": ["pre-training", "data-mixture", "openclimb"],
        "size_categories": [size],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": f"data/*.{suffix}"}]}],
    }
    table = "\n".join(
        f"| {_cell(row['name'])} | {row['weight']:.2%} | {row['realised']:.2%} | {row['natural']:.2%} | "
        f"{row['tokens']:,} | {row['repetitions']:.2f} |"
        for row in sorted(facts["domains"], key=lambda row: -row["weight"])
    )
    builder = "parquet" if format == "parquet" else "json"
    return f"""---
{_yaml(head)}---

# A pre-training mixture of {format_count(facts["token_budget"])} tokens

{counted(facts["documents"], "documents")}, {facts["tokens"]:,} tokens, {counted(len(facts["shards"]), "shards")}.
**Read in order, the shards are the mixture**: every stretch holds the domains in the shares below. Do not shuffle
across shards and do not sample; documents of each domain are in random order already, and copies of a document lie as
far apart as the budget allows.

{answer["sentence"]}

| domain | asked for | realised | natural | tokens | repetitions |
|---|---|---|---|---|---|
{table}

Shares are of tokens, counted with the tokenizer of the search (those that begin and end a document included). The
largest difference between a realised share and the one asked for is {facts["largest_difference"]:.3%}{_plainly(facts)}

## Load it

```python
from datasets import load_dataset

data = load_dataset(".", split="train", streaming=True)  # this folder
data = load_dataset("{builder}", data_files="data/*.{suffix}", split="train", streaming=True)  # the files alone
```

## Columns

| column | what it is |
|---|---|
| text | the document |
| id | its id in the corpus |
| domain | the domain that it counts for |
| tokens | its tokens, with those that begin and end it |
| repetition | 0 the first time a document comes, 1 the second … |
| source_file, position | where it stands in the corpus |

## How it was made

Openclimb, seed {config.seed}, scale {config.scale}. {config.tokens.heldout:.1%} of the documents, chosen by the hash of
their text, are held out of it. `mixture.json` and `mixture.csv` hold the weights; `megatron.txt` holds them as a
`--data-path`, for trainers that keep each domain in a file of its own. The texts keep the rights they had in the
corpus.
"""


def _plainly(facts: Mapping[str, Any]) -> str:
    if facts["within_tolerance"]:
        return "."
    return ": more than 0.1%, because whole documents are too long for so small a token budget."


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "domain"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _yaml(value: Mapping[str, Any]) -> str:
    """Return a mapping as YAML: each value as JSON, which YAML contains."""
    return "".join(f"{key}: {json.dumps(item)}\n" for key, item in value.items())
