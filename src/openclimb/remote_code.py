"""Models that bring code of their own: Python files beside the weights, which loading the model would run.

Such code, of embedders and of classifiers, runs only where `embed.trust_remote_code` says so. Reads config.json
(`auto_map`) and modules.json of a model's folder.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from openclimb.errors import ConfigError

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")  # of a model on the hub
LIBRARY = "sentence_transformers."  # classes of modules.json that come with the library
SHOWN = 4  # classes named in a message


def stop_on_remote_code(where: str, model: str, classes: Iterable[str], *, trusted: bool, pin: str) -> None:
    """Raise ConfigError, with what to do, when a model needs classes of its own and nobody said that they may run.

    `where`: the setting that names the model; `pin`: how a model of the hub is held to the commit that was read.
    """
    classes = list(dict.fromkeys(classes))
    if classes and not trusted:
        listed = ", ".join(classes[:SHOWN]) + (" …" if len(classes) > SHOWN else "")
        raise ConfigError(
            f"{where}: '{model}' brings code of its own ({listed}), which loading it would run",
            "read that code, then set embed.trust_remote_code = true"
            + ("" if Path(model).expanduser().is_dir() else f" and {pin}")
            + f"; or give another {where}",
        )


def remote_classes(folder: Path) -> list[str]:
    """Return the classes that a model in a local folder has in Python files of its own, as its files name them."""
    modules = [module for module in _read(folder / "modules.json", list) if isinstance(module, dict)]
    kinds = [str(module.get("type", "")) for module in modules]
    found = [kind for kind in kinds if kind and not kind.startswith(LIBRARY)]
    for place in dict.fromkeys(["", *(str(module.get("path", "")) for module in modules)]):
        found += mapped_classes(_read(folder / place / "config.json", dict))
    return found


def mapped_classes(config: Mapping[str, Any]) -> list[str]:
    """Return the classes of a config's `auto_map`; none where the library has the model's type itself."""
    mapped = config.get("auto_map")
    if not isinstance(mapped, dict) or not mapped:
        return []
    from transformers import CONFIG_MAPPING

    return [] if config.get("model_type") in CONFIG_MAPPING else [str(value) for value in mapped.values()]


def _read(path: Path, kind: type) -> Any:
    """Return a JSON file's list or table, empty where there is none; the library says what is wrong with the file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return kind()
    return found if isinstance(found, kind) else kind()
