"""What other trainers read of an exported dataset: the dataset card (templates/card.md), and Megatron's --data-path."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from openclimb.config.load import format_count
from openclimb.config.schema import Config
from openclimb.export.writers import find_writer
from openclimb.printable import printable
from openclimb.progress import counted
from openclimb.workspace.files import file_names

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
LEAST_FIXED = 1e-3
MARKUP = re.compile(r"[\\`*\[<|~$&]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.")  # an underscore inside a word is none


def megatron_line(domains: Sequence[Mapping[str, Any]]) -> str:
    """Return the --data-path argument for a trainer that holds each domain, tokenised, as a file of its own.

    PREFIX stands for the folder of those files; a domain's name is made safe for a shell and a path (`file_names`).
    """
    names = file_names([row["name"] for row in domains])
    pairs = [
        f"{_weight(row['weight'])} PREFIX/{name}_text_document"
        for row, name in zip(domains, names, strict=True)
        if row["weight"] > 0
    ]
    return "--data-path " + " ".join(pairs) + "\n"


def dataset_card(facts: Mapping[str, Any], sentence: str, config: Config, format: str) -> str:
    """Return README.md: a card that `datasets.load_dataset` reads, and that tells people what this is."""
    import jinja2

    writer = find_writer(format)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("openclimb.export"),
        finalize=_escape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": _number, "counted": counted, "count": format_count}
    return environment.get_template("card.md").render(
        facts=facts,
        domains=sorted(facts["domains"], key=lambda row: -row["weight"]),
        sentence=sentence,
        size=next(name for most, name in SIZES.items() if facts["documents"] < most),
        builder=writer.builder,
        suffix=writer.suffix,
        config=config,
    )


def _escape(value: Any) -> Any:
    """Return a text on one line, with a backslash before what Markdown reads as markup; `|safe` is left alone."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return MARKUP.sub(r"\\\g<0>", " ".join(printable(value).split()))


def _number(value: float, form: str) -> str:
    return format(value, form)


def _weight(weight: float) -> str:
    """Return a weight with six decimals, or with six digits where that would change it; none is printed as zero."""
    return f"{weight:.6f}" if weight >= LEAST_FIXED else f"{weight:.6g}"
