"""Annotations: documents of the corpus that a language model, or a function of the user's, rates by the rubric.

Reads `documents.jsonl` (draw.py) and `answers.jsonl` of its folder, a line for each document that was answered: unit,
position, scores or why there are none, tokens. Appends to that as answers come, and at the end writes `labels.jsonl`,
a line for each label by unit and position: unit, position, text, scores. Memory holds some 200 bytes a document.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from openclimb.config.registry import load, names
from openclimb.errors import ConfigError, EndpointError
from openclimb.progress import Progress, counted
from openclimb.quality.annotation.answers import DOCUMENTS, Answers, Documents
from openclimb.quality.annotation.budget import Limits, Tokens, about
from openclimb.quality.annotation.endpoint import Client, Endpoint
from openclimb.quality.annotation.replies import Answer
from openclimb.quality.annotation.rubric import HIGH, Rubric, Unusable, checked
from openclimb.workspace.context import StageContext
from openclimb.workspace.files import atomic

LABELS = "labels.jsonl"
BATCH = 32  # documents that a function is given at once
TELL_SECONDS = 0.5  # between two words of progress

Took = Callable[[int, Answer], None]


@dataclass(frozen=True)
class AnnotateSpec:
    """What is to be labelled, and by whom."""

    n: int = 2000  # documents in all, those of earlier calls among them
    balanced: bool = False  # over clusters, or over ready-made domains
    annotator: str = "endpoint"  # or package.module:function
    endpoint: Endpoint | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"{self.n} documents cannot be labelled", "give one or more: -n 2000")
        if (self.annotator == "endpoint") != (self.endpoint is not None):
            raise ConfigError(
                "labels come from an endpoint or from a function",
                "give --endpoint URL and --model NAME, or --annotator package.module:function",
            )
        if self.endpoint is None and self.limits != Limits():
            raise ConfigError("a function has no budget", "give the budget with --endpoint alone")
        if self.limits.usd is not None and self.limits.cost(Tokens()) is None:
            raise ConfigError("a budget in dollars needs prices", "give --usd-in and --usd-out, for a million tokens")

    @property
    def who(self) -> str:
        """The model or function, as records have it."""
        return self.endpoint.model if self.endpoint else self.annotator

    def is_done(self, facts: Mapping[str, Any]) -> bool:
        """Return whether labels with these facts are all that is asked for."""
        answered = facts["labels"] + sum(facts["failed"].values())
        return self.n <= answered or (self.n <= facts["asked"] and not facts["left"])


class Annotator(Protocol):
    """What rates documents."""

    @property
    def spent_up(self) -> bool:
        """Whether a budget ended the work."""

    def label(self, documents: Iterator[tuple[int, str]], spent: Tokens, took: Took) -> None:
        """Rate documents (number, text), and hand on each answer as it comes; `spent` count in a budget already."""


def annotator_of(spec: AnnotateSpec, rubric: Rubric, note: Callable[[str], None]) -> Annotator:
    """Return what rates documents. Raises ConfigError for a function that cannot be loaded and a key that cannot be
    sent.
    """
    found = load("annotator", spec.annotator)
    if spec.annotator in names("annotator"):
        made: Annotator = found(spec, rubric, note)
        return made
    return FunctionAnnotator(spec.annotator, found, list(rubric.scales))


def by_endpoint(spec: AnnotateSpec, rubric: Rubric, note: Callable[[str], None]) -> Annotator:
    if spec.endpoint is None:
        raise ConfigError("no endpoint is named", "give --endpoint URL and --model NAME")
    return Client(spec.endpoint, rubric, spec.limits, note)


@dataclass(frozen=True)
class FunctionAnnotator:
    """Rates documents with a function of the user's: texts → [{scale: number}], {} for a text without a label."""

    name: str
    function: Callable[[Sequence[str]], Any]
    scales: Sequence[str]
    spent_up: bool = False

    def label(self, documents: Iterator[tuple[int, str]], _spent: Tokens, took: Took) -> None:
        """Rate documents (number, text). Raises ConfigError where the function gives no dict for each text."""
        while batch := list(islice(documents, BATCH)):
            found = self.function([text for _, text in batch])
            if not isinstance(found, list) or len(found) != len(batch):
                what = f"{len(found)} answers" if isinstance(found, list) else type(found).__name__
                raise ConfigError(
                    f"the annotator {self.name} gave {what} for {len(batch)} texts",
                    "it must give a list with a dict for each text, {} where it has no label",
                )
            for (number, _), scores in zip(batch, found, strict=True):
                took(number, self._answer(scores))

    def _answer(self, scores: Any) -> Answer:
        if scores == {}:
            return Answer(None, Tokens(), "no label")
        try:
            return Answer(checked(scores, self.scales), Tokens())
        except Unusable as why:
            return Answer(None, Tokens(), why.reason, why.detail)


def label_documents(
    context: StageContext, spec: AnnotateSpec, rubric: Rubric, annotator: Annotator, answers: Answers
) -> dict[str, Any]:
    """Label the documents that have no answer yet, and write labels.jsonl; return the facts of the record.

    Raises EndpointError where the endpoint is of no use, or nothing was labelled. What was answered is kept.
    """
    documents, progress = Documents(context.folder), context.progress
    had = documents.answered(answers)
    scores = np.full((len(documents), len(rubric.scales)), np.nan)
    scores[had >= 0] = answers.scores[had[had >= 0]]
    waiting = np.flatnonzero((had < 0) & (documents.order < spec.n))
    waiting = waiting[np.argsort(documents.order[waiting], kind="stable")]
    progress.note(_before(spec, rubric, answers, documents, len(waiting)))
    told = Told(progress, len(waiting))

    def took(row: int, answer: Answer) -> None:
        answers.add(documents.place(row), answer)
        if answer.scores:
            scores[row] = [answer.scores[name] for name in answers.scales]
        told.one()

    annotator.label(documents.texts(waiting.tolist()), answers.tokens, took)
    labelled = np.flatnonzero(~np.isnan(scores[:, 0]))
    told.end(f"{len(labelled):,} labels")
    if not len(labelled):
        raise _nothing(answers, annotator)
    _write_labels(documents, labelled, scores, answers.scales, context.folder / LABELS)
    (context.folder / DOCUMENTS).unlink()
    return {**_facts(spec, answers, scores[labelled]), "left": told.total - told.done, "spent_up": annotator.spent_up}


def _nothing(answers: Answers, annotator: Annotator) -> EndpointError:
    if annotator.spent_up:
        return EndpointError("the budget is too small for one document", "give more, and run again")
    n = counted(sum(answers.failed.values()), "answers")
    return EndpointError(
        f"none of {n} is a label: {failures_text(answers.failed)}",
        f"{answers.path} says what came; edit rubric.toml or take another model, then add --redo",
    )


@dataclass
class Told:
    """Progress of many small pieces, told a few times a second."""

    progress: Progress
    total: int
    done: int = 0
    waiting: int = 0
    last: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.progress.start("label documents by the rubric", self.total, "documents")

    def one(self) -> None:
        """Count one."""
        self.done += 1
        self.waiting += 1
        if (now := time.monotonic()) - self.last >= TELL_SECONDS:
            self.progress.advance(self.waiting)
            self.waiting, self.last = 0, now

    def end(self, text: str) -> None:
        """Tell the rest, and the end."""
        self.progress.advance(self.waiting)
        self.progress.finish(text)


def _before(spec: AnnotateSpec, rubric: Rubric, answers: Answers, documents: Documents, n: int) -> str:
    """Return what is about to be asked and to cost, in a sentence."""
    text = f"{counted(n, 'documents')} to rate on {', '.join(rubric.scales)}"
    if spec.endpoint is None:
        return f"{text}, by {spec.annotator}"
    prompt = n * (about(len(rubric.system().encode())) + about(documents.n_bytes // max(1, len(documents))))
    expected = Tokens(prompt, n * min(rubric.answer_tokens, 10 + 8 * len(rubric.scales)))
    cost = spec.limits.cost(expected)
    text += f", by {spec.who} at {spec.endpoint.shown}: about {expected.total:,} tokens"
    text += f", ${cost:,.2f}" if cost is not None else ""
    if spec.limits.tokens is not None:
        text += f"; budget {spec.limits.tokens:,} tokens"
    if spec.limits.usd is not None:
        text += f"; budget ${spec.limits.usd:,.2f}"
    if answers.tokens.total:
        text += f"; spent before {answers.tokens.total:,} tokens"
    if not spec.limits.allow(answers.tokens + expected):
        text += "; the budget will not do for all, and the work stops before it is exceeded"
    return text


def _write_labels(
    documents: Documents, rows: NDArray[np.int64], scores: NDArray[np.float64], scales: Sequence[str], path: Path
) -> None:
    import orjson

    with atomic(path) as temporary, open(temporary, "wb") as file:
        for row, text in documents.texts(rows.tolist()):
            values = [int(value) if value.is_integer() else value for value in scores[row].tolist()]
            unit, position = documents.place(row)
            line = {"unit": unit, "position": position, "text": text, "scores": dict(zip(scales, values, strict=True))}
            file.write(orjson.dumps(line) + b"\n")


def _facts(spec: AnnotateSpec, answers: Answers, scores: NDArray[np.float64]) -> dict[str, Any]:
    """Return the numbers of the record; `scores`: those of the labels, (n, n_scales)."""
    counts, means = {}, {}
    for i, name in enumerate(answers.scales):
        counts[name] = np.bincount(np.rint(scores[:, i]).astype(int), minlength=HIGH + 1).tolist()
        means[name] = round(float(scores[:, i].mean()), 3)
    facts = {"asked": spec.n, "labels": len(scores), "failed": dict(answers.failed.most_common())}
    facts |= {"tokens_in": answers.tokens.prompt, "tokens_out": answers.tokens.answer, "estimated": answers.estimated}
    if (cost := spec.limits.cost(answers.tokens)) is not None:
        facts["usd"] = round(cost, 6)
    if spec.endpoint:
        facts["endpoint"] = spec.endpoint.shown
    return {**facts, "means": means, "counts": counts}


def failures_text(failed: Mapping[str, int]) -> str:
    """Return the kinds of failure with how many there were."""
    return ", ".join(f"{kind} {n:,}" for kind, n in failed.items())
