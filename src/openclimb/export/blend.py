"""Blend files: with which probability a trainer draws from each domain that lies in a folder of its own.

Writes `blend.json`, for programs and people: each domain's folder, weight, tokens and epochs. And beside it what the
documentation of a trainer that reads the format has for a mixture (docs/formats.md names the pages): `nemo.json` for
megatron, `olmo-core.yaml` for tokens, `levanter.yaml` for jsonl.zst, each a template of templates/blend/. Paths are
relative to the dataset's folder.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openclimb.config.load import format_count
from openclimb.export.facts import shares_of
from openclimb.export.writers.writer import Writer
from openclimb.workspace.files import write_json, write_text

BLEND = "blend.json"
TINY = 1e-4  # a weight below which a trainer that rounds, or reads few sequences, may leave a domain out
DECIMALS = 12  # of a weight in YAML, where 1e-05 is a text


def write_blends(
    folder: Path, facts: dict[str, Any], written: Sequence[dict[str, Any]], writer: Writer
) -> dict[str, Any]:
    """Write the blend files of a dataset whose shards hold one domain each; return what blend.json says."""
    import jinja2

    blend = describe_blend(facts, written)
    write_json(folder / BLEND, blend)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("openclimb.export", "templates/blend"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"quoted": _quoted, "plain": _plain, "prefix": _prefix, "count": format_count}
    for name in writer.blends:
        write_text(folder / name, environment.get_template(name).render(blend=blend, read=_read(blend)))
    return blend


def describe_blend(facts: dict[str, Any], written: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return for each domain its `weight` (they sum to 1), the `tokens`, `documents` and `files` that lie there, the
    `tokens_read` of it at the token budget, and the `epochs`: how often its files are read then.

    `tiny` names the domains whose weight is above 0 and below `TINY`; `never` those whose weight is 0.
    """
    shares = shares_of(facts, written)
    rows = []
    for d, row in enumerate(facts["domains"]):
        files = [
            {"file": f"data/{note['file']}", "weight": share, "tokens": note["tokens"][d]}
            for note, share in zip(written, shares, strict=True)
            if note["documents"][d]
        ]
        tokens_read = row["weight"] * facts["token_budget"]
        rows.append(
            {
                "name": row["name"],
                "folder": f"data/{row['folder']}",
                "weight": row["weight"],
                "tokens": row["tokens"],
                "documents": row["documents"],
                "tokens_read": round(tokens_read),
                "epochs": tokens_read / max(1, row["tokens"]),
                "repetitions": row["repetitions"],
                "files": files,
            }
        )
    return {
        "token_budget": facts["token_budget"],
        "tiny": [row["name"] for row in rows if 0 < row["weight"] < TINY],
        "never": [row["name"] for row in rows if not row["weight"]],
        "domains": rows,
    }


def _read(blend: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the domains that training reads, their weights summing to 1.

    `limit`: the epochs, rounded up, as the most repetitions; `key`: a name that any file can have as a key.
    """
    rows = [row for row in blend["domains"] if row["weight"] and row["files"]]
    total = sum(row["weight"] for row in rows)
    return [
        {
            **row,
            "key": row["folder"].removeprefix("data/"),
            "weight": row["weight"] / total,
            "limit": max(1.0, (math.floor(row["epochs"] * 1e4) + 1) / 1e4),
        }
        for row in rows
    ]


def _quoted(text: str) -> str:
    """Return a text in quotes as JSON and YAML both read it: neither takes control characters, nor YAML pairs of
    surrogates for one character.
    """
    plain = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() or ord(c) > 0xFFFF else f"\\u{ord(c):04x}" for c in plain)


def _plain(value: float) -> str:
    return f"{value:.{DECIMALS}f}"


def _prefix(file: str) -> str:
    return file.removesuffix(".bin")
