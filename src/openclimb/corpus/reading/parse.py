"""Rows → documents: the text, the id and the domain of a row, or the reason why it is none."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openclimb.config.schema import CorpusSettings
from openclimb.corpus.reading.text import parse_json, whole
from openclimb.corpus.tokenizer import load_tokenizer

MOST_BYTES = 20_000_000  # of a row; a longer one is rejected and not kept. Also characters of a text
TOO_LONG = f"longer than {MOST_BYTES // 1_000_000} MB"
FOLDERS = "folders"  # of corpus.domains
EMPTY = "empty"  # why a document is left out: it has no text,
NOT_PLAIN = "not plain text"  # or a WARC file holds something else
HTML = "HTML is not extracted; use the WET files, or trafilatura first"
MISSING = object()
SHOWN = 40  # characters of a column's name in a message: a table without a header has long ones
TOKEN_IDS = "these are token ids, not text"


@dataclass(frozen=True)
class Document:
    """One text with an id."""

    position: int  # byte offset of its line in .jsonl; else its number from 0: of its line, row or element in the file
    text: str
    id: str
    source: str = ""  # ready-made domain
    repaired: bool = False  # it had halves of surrogate pairs, which are U+FFFD now


@dataclass(frozen=True)
class Rejected:
    """A document that cannot be read; or one that is left out, which is no fault."""

    file: str
    position: int
    line: int | None  # counted from 1 within the unit's range; None where there are no lines
    reason: str
    left_out: str = ""  # why it is no fault: EMPTY or NOT_PLAIN
    source: str = ""  # ready-made domain of one that is left out


class NotText(Exception):
    """A value is no text; the message says what it is."""


def value_at(row: Any, path: str) -> Any:
    """Return the value of a column, or of a path such as `messages.content`, in which a list gives a list; or MISSING.

    A column whose own name holds dots comes first.
    """
    if isinstance(row, list):
        found = [value_at(one, path) for one in row if one is not None]
        return MISSING if found and all(one is MISSING for one in found) else [v for v in found if v is not MISSING]
    if not isinstance(row, dict):
        return MISSING
    if path in row:
        return row[path]
    head, _, rest = path.partition(".")
    if not rest or head not in row:
        return MISSING
    return None if row[head] is None else value_at(row[head], rest)


def text_of(value: Any, column: str) -> str:
    """Return the text that a value is; those of a list are joined by newlines. Raises NotText for what is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):  # a binary column
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise NotText("the text is not UTF-8") from None
    if is_token_ids(value):
        raise NotText(f"{TOKEN_IDS}: decode them first, or name their tokenizer.json in tokens.tokenizer")
    if isinstance(value, dict):
        raise NotText(f"'{column}' is a struct, not text: name one of its fields, as {column}.{next(iter(value), '…')}")
    if isinstance(value, list):
        return "\n".join(text_of(part, column) for part in value if part is not None)
    raise NotText(f"'{column}' is {type(value).__name__}, not text")


def is_token_ids(value: Any) -> bool:
    """Return whether a value is a list of whole numbers."""
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value)


def shown(columns: Any) -> str:
    """Return columns as a message lists them."""
    names = [str(name) for name in columns]
    return ", ".join(name if len(name) <= SHOWN else f"{name[:SHOWN]}…" for name in names) or "none"


class Parser:
    """Turns a line or a row into a document, or says why it cannot.

    `tokenizer` is a path, which decodes token ids; `folder` the domain of all, where folders are the domains.
    """

    def __init__(self, name: str, settings: CorpusSettings, tokenizer: str = "", folder: str = "") -> None:
        self.name, self.tokenizer = name, tokenizer
        self.text, self.id = settings.text, settings.id
        kind, _, column = settings.domains.partition(":")
        self.source_column = column if kind == "column" else ""
        self.folder = folder if kind == FOLDERS else ""
        self.columns = [column for column in (self.text, self.id, self.source_column) if column]

    def tops(self, names: list[str]) -> list[str]:
        """Return which of a table's columns hold what is read: those of a path begin it."""
        wanted = {column if column in names else column.partition(".")[0] for column in self.columns}
        return [name for name in names if name in wanted]

    def line(self, line: bytes, position: int, number: int | None) -> Document | Rejected:
        """Return the document of a JSON text."""
        try:
            values = parse_json(line)
        except ValueError as error:
            try:
                line.decode("utf-8", "surrogatepass")
            except UnicodeDecodeError as cause:
                return self.reject(position, number, f"the line is not UTF-8: {cause.reason} at byte {cause.start}")
            return self.reject(position, number, f"not a JSON line: {error}")
        if not isinstance(values, dict):
            return self.reject(position, number, f"not a JSON object but {type(values).__name__}")
        return self.values(values, position, number)

    def values(self, values: dict[str, Any], position: int, number: int | None) -> Document | Rejected:
        """Return the document of a row, given as {column: value}."""
        value = value_at(values, self.text)
        if value is MISSING:
            return self.reject(position, number, f"no column '{self.text}'; it has: {shown(values)}")
        try:
            decodes = self.tokenizer and is_token_ids(value)
            text = decoded(value, self.tokenizer) if decodes else text_of(value, self.text)
        except NotText as error:
            return self.reject(position, number, str(error))
        source = self.folder
        if self.source_column:
            source = _domain_name(value_at(values, self.source_column))
        if not text.strip():
            return Rejected(self.name, position, number, f"'{self.text}' is empty", EMPTY, source)
        if len(text) > MOST_BYTES:
            return self.reject(position, number, TOO_LONG)
        if self.source_column and not source:
            return self.reject(position, number, f"no name in the domain column '{self.source_column}'")
        found = value_at(values, self.id) if self.id else None
        name = f"{self.name}:{position}" if found is None or found is MISSING else whole(str(found))
        repaired = whole(text)
        return Document(position, repaired, name, source, repaired is not text)

    def reject(self, position: int, number: int | None, reason: str) -> Rejected:
        """Return a document of this file that cannot be read."""
        return Rejected(self.name, position, number, reason)


def decoded(ids: list[int], tokenizer: str) -> str:
    """Return the text of token ids without special tokens. Raises NotText for an id that the tokenizer has not."""
    loaded = load_tokenizer(Path(tokenizer).expanduser())
    strange = next((one for one in (min(ids), max(ids)) if not 0 <= one < loaded.get_vocab_size()), None)
    if strange is not None:
        raise NotText(f"token id {strange} is not one of the {loaded.get_vocab_size():,} of tokens.tokenizer")
    return str(loaded.decode(ids, skip_special_tokens=True))


def _domain_name(value: Any) -> str:
    """Return the domain that a value names, "" where it names none: text, a whole number, true or false."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))  # a column of integers with gaps comes as floats
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return whole(value).strip() if isinstance(value, str) else ""
