"""What an OpenAI-compatible server replies, as a label, a failure with its kind, or a reason to try again."""

import email.utils
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from openclimb.quality.annotation.budget import Tokens, about
from openclimb.quality.annotation.rubric import Unusable, scores_of

AGAIN = (0, 200, 408, 409, 425, 429)  # and 500 and more: the next try may do; 200 is one without an answer in it
NO_MONEY = ("insufficient_quota", "billing", "insufficient credit")
TOO_LONG = ("context length", "context size", "context window", "maximum context", "too long", "too large")
FILTERED = ("content_filter", "content management policy", "moderation", "flagged")
DETAIL = 300  # characters of what a server says that are kept


@dataclass(frozen=True)
class Answer:
    """What came of a document: its scores, or why there are none; and the tokens that it cost."""

    scores: dict[str, float] | None
    tokens: Tokens
    failed: str = ""  # the kind of failure
    detail: str = ""
    estimated: bool = False  # the server did not say how many tokens


@dataclass(frozen=True)
class Reply:
    """A server's reply; status 0: none came, and the data says why."""

    status: int
    data: bytes
    retry_after: str = ""

    @cached_property
    def body(self) -> dict[str, Any]:
        """The JSON object in it, {} where it has none."""
        try:
            found = json.loads(self.data)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def choice(self) -> dict[str, Any] | None:
        """The answer in it, None where it has none."""
        choices = self.body.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        return first if isinstance(first, dict) and isinstance(first.get("message"), dict) else None

    @property
    def refused(self) -> bool:
        """Whether the same request would be refused again."""
        if self.status == 429:
            return any(word in said(self).lower() for word in NO_MONEY)
        return self.status < 500 and self.status not in AGAIN


def answer_of(reply: Reply, scales: Sequence[str], n_bytes: int, masked: Callable[[str], str]) -> Answer:
    """Return the label in a reply, or why there is none. `n_bytes`: of the prompt, for a server that counts nothing."""
    choice = reply.choice or {}
    message = choice["message"]
    content = message.get("content")
    content = content if isinstance(content, str) else ""
    tokens, estimated = _tokens(reply.body.get("usage"), n_bytes, len(content.encode("utf-8", "replace")))
    try:
        if message.get("refusal") or choice.get("finish_reason") == "content_filter":
            raise Unusable("refused", str(message.get("refusal") or "")[:DETAIL])
        if choice.get("finish_reason") == "length":
            raise Unusable("cut off", content[:DETAIL])
        if not content.strip():
            raise Unusable("empty")
        return Answer(scores_of(content, scales), tokens, estimated=estimated)
    except Unusable as why:
        return Answer(None, tokens, why.reason, masked(_writable(why.detail)), estimated)


def _tokens(usage: Any, prompt_bytes: int, answer_bytes: int) -> tuple[Tokens, bool]:
    """Return the tokens that a server counted, and whether some had to be estimated."""
    given = usage if isinstance(usage, dict) else {}
    counts = [given.get(name) for name in ("prompt_tokens", "completion_tokens")]
    known = [isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in counts]
    guesses = (about(prompt_bytes), about(answer_bytes))
    prompt, answer = (n if is_known else guess for n, is_known, guess in zip(counts, known, guesses, strict=True))
    return Tokens(prompt or 0, answer or 0), not all(known)


def said(reply: Reply) -> str:
    """Return what a server says is wrong, in one line."""
    error = reply.body.get("error", reply.body)
    if isinstance(error, dict):
        parts = [error.get(name) for name in ("message", "code", "detail")]
        text = " ".join(f"{part}" for part in parts if part)
    else:
        text = str(error)
    text = text or reply.data[: 4 * DETAIL].decode("utf-8", "replace")
    line = _writable(" ".join(text.split())[:DETAIL])
    return f"{reply.status} {line}".strip() if reply.status and not line else line or str(reply.status)


def _writable(text: str) -> str:
    """Return a text without halves of surrogate pairs, which JSON may name and no file can hold."""
    return text.encode("utf-8", "replace").decode()


def is_filtered(reply: Reply) -> bool:
    """Return whether a filter refused the document."""
    return reply.status in (400, 403) and any(word in said(reply).lower() for word in FILTERED)


def is_too_long(reply: Reply) -> bool:
    """Return whether the document is too long for the model."""
    return reply.status == 413 or (reply.status == 400 and any(word in said(reply).lower() for word in TOO_LONG))


def retry_after(reply: Reply) -> float:
    """Return the seconds that a server asks to wait, given as such or as a date; 0 where it asks for none."""
    text = reply.retry_after.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (email.utils.parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
