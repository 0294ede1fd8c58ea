"""The dataset card: templates/card.md, with the part of templates/load/ that says how the format is loaded."""

import re
from collections.abc import Mapping
from typing import Any

from openclimb.config.load import format_count
from openclimb.config.schema import Config
from openclimb.export.writers.writer import find_writer
from openclimb.printable import printable
from openclimb.progress import counted

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
MARKUP = re.compile(r"[\\`*\[<|~$&]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.")  # an underscore inside a word is none


def dataset_card(facts: Mapping[str, Any], sentence: str, config: Config, seed: int) -> str:
    """Return README.md: a card that `datasets.load_dataset` reads, and that tells people what this is."""
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
    environment.filters |= {"number": _number, "counted": counted, "count": format_count}
    return environment.get_template("card.md").render(
        facts=facts,
        domains=sorted(facts["domains"], key=lambda row: -row["weight"]),
        sentence=sentence,
        size=next(name for most, name in SIZES.items() if facts["documents"] < most),
        writer=writer,
        files=f"data/{'*/' if facts['by_domain'] else ''}*{writer.suffixes[0]}",
        seed=seed,
        config=config,
    )


def _escape(value: Any) -> Any:
    """Return a text on one line, with a backslash before what Markdown reads as markup; `|safe` is left alone."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return MARKUP.sub(r"\\\g<0>", " ".join(printable(value).split()))


def _number(value: float, form: str) -> str:
    return format(value, form)
