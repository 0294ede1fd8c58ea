"""Sequence classifiers of the hub's form as scorers: `transformers:FOLDER`, or `transformers:OWNER/NAME[@REVISION]`.

What a model's labels mean follows from its config.json: one output is a score itself (FineWeb-Edu's form); labels that
are numbers have one score, the expected or the likeliest label; other labels have a score each, their probability; the
outputs of a regression with several labels are scores themselves. Weights are read from safetensors alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from openclimb.config.schema import QualitySettings
from openclimb.errors import ConfigError, MissingDependency, OpenclimbError
from openclimb.quality.scorers import GPU_SHARE, Place, Scorer, Scores
from openclimb.remote_code import HUB_NAME, mapped_classes, stop_on_remote_code
from openclimb.workspace.files import file_stamps

MOST_TOKENS = 512  # of a document that a classifier sees, as in the paper's recipe
MOST_CHARS = 8000  # of a document that are cut into tokens: 512 tokens are fewer in almost any writing
BATCH_TOKENS = 16 * MOST_TOKENS  # in one pass, with padding
WHERE = "quality.scorers"
FIX = "give a folder with config.json, tokenizer and model.safetensors, or the name of such a model on the hub"


@dataclass(frozen=True)
class Classifier:
    """A model's name or folder, its revision (None: the newest, or a folder), and whether its own code may run."""

    model: str
    revision: str | None
    trusted: bool

    @property
    def options(self) -> dict[str, Any]:
        """What every call that loads a part of it is given."""
        return {"revision": self.revision, "trust_remote_code": self.trusted}


@dataclass(frozen=True)
class Head:
    """What the outputs mean: names of the scores, the numbers that labels stand for (one score), the link function."""

    names: tuple[str, ...]
    values: tuple[float, ...]
    link: str  # "identity", "softmax" or "sigmoid"


def scorers(settings: QualitySettings, argument: str, place: Place) -> list[Scorer]:
    """Return the scorer of a model; its configuration is read now, its weights at the first call."""
    if not argument:
        raise ConfigError(
            f"{WHERE}: 'transformers' names no model", 'write "transformers:FOLDER" or "transformers:OWNER/NAME"'
        )
    classifier = _named(argument, place.trust_remote_code)
    head = _head(classifier, _configuration(classifier), argument)
    function = partial(_scores, classifier, head, settings.label, file_stamps(classifier.model))
    return [Scorer(head.names, function, gpu_share=GPU_SHARE)]


def _named(argument: str, trusted: bool) -> Classifier:
    """Return the classifier of a folder that is there, or of a name on the hub."""
    if Path(argument).expanduser().is_dir():
        return Classifier(str(Path(argument).expanduser()), None, trusted)
    name, _, revision = argument.partition("@")
    if not HUB_NAME.fullmatch(name):
        raise ConfigError(f"{WHERE}: there is no folder '{argument}'", FIX)
    return Classifier(name, revision or None, trusted)


def _configuration(classifier: Classifier) -> Any:
    """Return a model's configuration, fetched if need be. Raises ConfigError where there is none or it may not run."""
    try:
        from transformers import AutoConfig, PretrainedConfig
    except ImportError:
        raise MissingDependency("transformers", "pip install 'openclimb[embed]'") from None
    try:
        raw, _ = PretrainedConfig.get_config_dict(classifier.model, revision=classifier.revision)
        if not raw:
            raise FileNotFoundError("it has no config.json")
        pin = f"write transformers:{classifier.model}@COMMIT with the commit that you read"
        classes = mapped_classes(raw)
        stop_on_remote_code(f"{WHERE} model", classifier.model, classes, trusted=classifier.trusted, pin=pin)
        return AutoConfig.from_pretrained(classifier.model, **classifier.options)
    except OpenclimbError:
        raise
    except Exception as error:  # network, authentication, name: the hub's client raises many kinds
        raise _cannot_load(classifier, error) from None


def _cannot_load(classifier: Classifier, error: Exception) -> ConfigError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ConfigError(
        f"{WHERE}: cannot load '{classifier.model}' as a sequence classifier: {reason}",
        FIX,
    )


def _head(classifier: Classifier, config: Any, argument: str) -> Head:
    """Return what the outputs of a model mean, by its configuration."""
    name = Path(classifier.model).name
    labels = [str(config.id2label[i]) for i in range(config.num_labels)]
    if config.num_labels == 1:
        return Head((name,), (), "identity")
    several = tuple(f"{name}#{label}" for label in labels)
    if config.problem_type == "regression":
        return Head(several, (), "identity")
    if config.problem_type == "multi_label_classification":
        return Head(several, (), "sigmoid")
    try:
        return Head((name,), tuple(float(label.removeprefix("LABEL_")) for label in labels), "softmax")
    except ValueError:
        if len(set(labels)) < len(labels):
            raise ConfigError(
                f"{WHERE}: the labels of '{argument}' are not different", "correct id2label in its config.json"
            ) from None
        return Head(several, (), "softmax")


@lru_cache(maxsize=4)
def _loaded(classifier: Classifier, _stamps: tuple[tuple[str, int, int], ...]) -> tuple[Any, Any, Any]:
    """Return tokenizer, model and device, kept in memory until the folder's files change."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    said: Any = logging  # some of its functions have no types
    level, bars = said.get_verbosity(), said.is_progress_bar_enabled()
    said.set_verbosity_error()  # its load reports would break the progress view
    said.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(classifier.model, **classifier.options)
        model = AutoModelForSequenceClassification.from_pretrained(
            classifier.model, use_safetensors=True, **classifier.options
        ).float()
    except Exception as error:  # the library has many kinds; all mean the same to the user
        raise _cannot_load(classifier, error) from error
    finally:
        said.set_verbosity(level)
        if bars:
            said.enable_progress_bar()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return tokenizer, model.eval().to(device), device


def _scores(
    classifier: Classifier, head: Head, which: str, stamps: tuple[tuple[str, int, int], ...], texts: Sequence[str]
) -> Scores:
    """Return the scores of texts, each cut to MOST_TOKENS; passes hold texts of about one length."""
    import torch

    tokenizer, model, device = _loaded(classifier, stamps)
    positions = int(getattr(model.config, "max_position_embeddings", MOST_TOKENS))
    longest = min(MOST_TOKENS, positions, tokenizer.model_max_length)
    cut = [text[:MOST_CHARS] or " " for text in texts]
    tokens = tokenizer(cut, truncation=True, max_length=longest)["input_ids"] if cut else []
    order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
    padding = tokenizer.pad_token_id
    found = np.zeros((len(texts), len(head.names)), dtype=np.float32)
    begin = 0
    with torch.inference_mode():
        while begin < len(order):
            width = max(1, len(tokens[order[begin]]))
            rows = order[begin : begin + (1 if padding is None else max(1, BATCH_TOKENS // width))]
            ids = torch.full((len(rows), width), padding or 0)
            mask = torch.zeros_like(ids)
            for i, row in enumerate(rows):
                ids[i, : len(tokens[row])] = torch.tensor(tokens[row])
                mask[i, : len(tokens[row])] = 1
            logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
            found[rows] = _meaning(logits.float().cpu().numpy(), head, which)
            begin += len(rows)
    return found


def _meaning(logits: Any, head: Head, which: str) -> Scores:
    """Return the scores, shape (n, n_scores), that outputs of shape (n, n_labels) mean.

    With "argmax", the value of the likeliest label; a single output is rounded to the nearest whole number, as
    FineWeb-Edu's authors do.
    """
    if head.link == "identity":
        return np.rint(logits) if which == "argmax" and logits.shape[1] == 1 else np.asarray(logits)
    if head.link == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-logits)))
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    if not head.values:
        return np.asarray(probabilities)
    values = np.array(head.values, dtype=np.float32)
    best = values[probabilities.argmax(axis=1)]
    return np.asarray(best[:, None] if which == "argmax" else probabilities @ values[:, None])
