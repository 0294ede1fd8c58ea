"""The dataset card: templates/card.md of a mixture, clusters.md of each document once.

Both with the part of templates/load/ that says how the format is loaded.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openclimb.config.load import format_count
from openclimb.config.schema import Config
from openclimb.corpus.tokenizer import load_tokenizer
from openclimb.export.facts import TOKENIZER
from openclimb.export.writers.writer import Writer, find_writer
from openclimb.printable import printable
from openclimb.progress import counted, size_text

SIZES = {
    10**3: "n<1K",
    10**4: "1K<n<10K",
    10**5: "10K<n<100K",
    10**6: "100K<n<1M",
    10**7: "1M<n<10M",
    10**8: "10M<n<100M",
    10**9: "100M<n<1B",
    10**12: "n>1B",
}
EXAMPLES, EXAMPLE_CHARS = 3, 200  # documents of a domain that the card shows, and how much of each
NO_SCORES = ("cluster", "distance", "hash")  # what a row keeps of the labels beside scores
MARKUP = re.compile(r"[\\`*\[<|~$&]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.")  # an underscore inside a word is none


def dataset_card(
    facts: Mapping[str, Any], sentence: str, config: Config, seed: int, about: Sequence[Mapping[str, str]]
) -> str:
    """Return README.md: a card that `datasets.load_dataset` reads, and that tells people what this is.

    `about`: the rows of domains/domains.csv, in the order of the facts' domains.
    """
    import jinja2

    writer = find_writer(facts["format"])
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("openclimb.export"),
        finalize=_escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": _number, "counted": counted, "count": format_count, "size": size_text}
    apart = facts["by_domain"] or facts["by_cluster"]
    domains = [{**row, "about": one} for row, one in zip(facts["domains"], about, strict=True)]
    return environment.get_template("clusters.md" if facts["by_cluster"] else "card.md").render(
        facts=facts,
        domains=sorted(domains, key=lambda row: -row["weight"]),
        sentence=sentence,
        size=next(name for most, name in SIZES.items() if facts["documents"] < most),
        writer=writer,
        files=f"data/{'*/' if apart else ''}*{writer.suffixes[0]}",
        scores=[name for name in facts["labels"] if name not in NO_SCORES],
        clustered="cluster" in facts["labels"],
        seed=seed,
        config=config,
    )


def name_examples(folder: Path, facts: dict[str, Any], written: Sequence[Mapping[str, Any]], writer: Writer) -> None:
    """Add to each domain of the facts `examples`: how the first documents of its first shard begin."""
    tokenizer = load_tokenizer(folder / TOKENIZER) if writer.tokens else None
    for d, row in enumerate(facts["domains"]):
        row["examples"] = []
        first = next((note["file"] for note in written if note["documents"][d]), None)
        if first is None:
            continue
        paths = writer.paths(folder / "data", first.removesuffix(writer.suffixes[0]))
        for found in next(writer.read(*paths)).slice(0, EXAMPLES).to_pylist():
            text = tokenizer.decode(found["ids"][:EXAMPLE_CHARS]) if tokenizer else found["text"]
            row["examples"].append(" ".join(printable(text[:EXAMPLE_CHARS]).split()))


def _escape(value: Any) -> Any:
    """Return a text on one line, with a backslash before what Markdown reads as markup; `|safe` is left alone."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return MARKUP.sub(r"\\\g<0>", " ".join(printable(value).split()))


def _number(value: float, form: str) -> str:
    return format(value, form)
