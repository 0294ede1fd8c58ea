"""The tokenizer: a byte-level BPE trained on the sample, or any tokenizer.json.

Text that looks like a special token is text: `<|endoftext|>` in a document does not end it.
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from openclimb.errors import ConfigError
from openclimb.workspace.files import atomic, file_stamps, folder_fingerprint, write_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PIECE = 1 << 18  # characters of a text that are encoded at once
END = "<|endoftext|>"  # stands between documents
# Special tokens that end a document where no tokenizer_config.json names one: the first that the tokenizer has.
END_NAMES = (END, "</s>", "<eos>", "<|end_of_text|>", "<|im_end|>", "[SEP]")


CONFIG = "tokenizer_config.json"


def train_tokenizer(texts: Iterable[str], vocab_size: int, out: Path) -> None:
    """Train a byte-level BPE with `vocab_size` entries and write it; id 0 is the end of a document."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    with atomic(out) as temporary:
        tokenizer.save(str(temporary))


def load_tokenizer(path: Path) -> "Tokenizer":
    """Return the tokenizer in a tokenizer.json; kept in memory until the file changes.

    What the file says of truncation and padding is left out: documents are read whole, and nothing is added to them.
    Raises ConfigError when there is no such file or it cannot be read.
    """
    if not path.is_file():
        raise ConfigError(f"tokens.tokenizer: there is no file {path}", "name a tokenizer.json, or leave it empty")
    return _load(path, file_stamps(str(path)))


@lru_cache(maxsize=4)
def _load(path: Path, _stamps: tuple[tuple[str, int, int], ...]) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ConfigError(f"tokens.tokenizer: {path} cannot be read: {error}", "name a tokenizer.json") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


@dataclass(frozen=True)
class Ends:
    """Ids around a document: `start` stands before a text that is scored, `end` after each document that is read."""

    start: int
    end: int

    @property
    def around(self) -> tuple[list[int], list[int]]:
        """The ids that models read before and after a document.

        A start that is the end token is not read twice: the end of the document before stands there anyhow.
        """
        return [self.start] if self.start != self.end else [], [self.end]


def ends_of(path: Path) -> Ends:
    """Return which tokens of a tokenizer.json stand around a document.

    The end is `eos_token` of the tokenizer_config.json beside it, or else the first special token of END_NAMES: a
    plain word `</s>` of the vocabulary ends nothing. The start is `bos_token` where that file says `add_bos_token`,
    or else what the tokenizer itself puts before a text, or else the end.
    Raises ConfigError where neither says what the end is.
    """
    tokenizer = load_tokenizer(path)
    named = _read_names(path)
    end = _end_of(path, tokenizer, named.get("eos_token"))
    first = tokenizer.encode("").ids
    start = int(first[0]) if first else end
    if named.get("add_bos_token") is False:
        start = end
    elif named.get("add_bos_token") and named.get("bos_token"):
        start = _id_of(path, tokenizer, named["bos_token"])
    return Ends(start, end)


def describe_ends(path: Path) -> dict[str, str]:
    """Return a tokenizer's path and the names of the tokens that a document begins and ends with."""
    tokenizer, ends = load_tokenizer(path), ends_of(path)
    return {"path": str(path), "start": tokenizer.id_to_token(ends.start), "end": tokenizer.id_to_token(ends.end)}


def _end_of(path: Path, tokenizer: "Tokenizer", named: str | None) -> int:
    if named:
        return _id_of(path, tokenizer, named)
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    for name in END_NAMES:
        if name in special:
            return int(tokenizer.token_to_id(name))
    known = ", ".join(sorted(special)) or "it has none"
    raise ConfigError(
        f"which token of {path} ends a document is not known: none of {', '.join(END_NAMES)} is one of its special "
        f"tokens ({known})",
        f'write {{"eos_token": "NAME"}}, with the name of that token, into {path.parent / CONFIG}',
    )


def _id_of(path: Path, tokenizer: "Tokenizer", name: str) -> int:
    found = tokenizer.token_to_id(name)
    if found is None:
        raise ConfigError(
            f"{path.parent / CONFIG} names the token {name!r}, which {path.name} does not have",
            "name one of its tokens as eos_token and bos_token",
        )
    return int(found)


def _read_names(path: Path) -> dict[str, Any]:
    """Return `eos_token`, `bos_token` and `add_bos_token` of the tokenizer_config.json beside a tokenizer.json."""
    beside = path.parent / CONFIG
    if not beside.is_file():
        return {}
    try:
        raw = json.loads(beside.read_text(encoding="utf-8-sig"))
        if not isinstance(raw, dict):
            raise ValueError("it is not an object")
    except ValueError as error:
        raise ConfigError(f"{beside} cannot be read: {error}", "restore it, or take it away") from None
    found: dict[str, Any] = {}
    for name in ("eos_token", "bos_token"):
        value = raw.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str) and value:
            found[name] = value
    if isinstance(raw.get("add_bos_token"), bool):
        found["add_bos_token"] = raw["add_bos_token"]
    return found


def copy_tokenizer(path: Path, out: Path) -> None:
    """Copy a tokenizer.json to `out`, and beside it what its tokenizer_config.json says of a document's ends."""
    named = _read_names(path)
    if named:
        write_json(out.parent / CONFIG, named)
    with atomic(out) as temporary:
        shutil.copyfile(path, temporary)


def tokenizer_fingerprint(path: str) -> str:
    """Return the fingerprint of a tokenizer.json and of what stands beside it on a document's ends; "" for no file."""
    own = folder_fingerprint(path)
    beside = folder_fingerprint(str(Path(path).expanduser().parent / CONFIG)) if own else ""
    return f"{own} {beside}" if beside else own


def same_ids(one: Path, other: Path) -> bool:
    """Return whether two tokenizers give every text the same ids, and the same ids to its start and its end."""
    parts = []
    for path in (one, other):
        raw = json.loads(load_tokenizer(path).to_str())
        encoding = [raw[name] for name in ("added_tokens", "normalizer", "pre_tokenizer", "model")]
        parts.append([encoding, ends_of(path)])
    return bool(parts[0] == parts[1])


def encode_batch(tokenizer: "Tokenizer", texts: Sequence[str]) -> list[Any]:
    """Return the token ids of each text, without special tokens.

    A text of more than `PIECE` characters is cut before spaces, or within a word that is longer than that: the library
    takes some 70 bytes of memory for each byte of what it encodes at once.
    """
    if all(len(text) <= PIECE for text in texts):
        return [found.ids for found in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
    return [_encoded(tokenizer, text) for text in texts]


def _encoded(tokenizer: "Tokenizer", text: str) -> NDArray[np.uint32]:
    parts, at = [np.empty(0, dtype=np.uint32)], 0
    while at < len(text):
        stop = at + PIECE
        if stop < len(text):
            stop = at + (_last_cut(text[at:stop]) or PIECE)
        (found,) = tokenizer.encode_batch_fast([text[at:stop]], add_special_tokens=False)
        parts.append(np.array(found.ids, dtype=np.uint32))
        at = stop
    return np.concatenate(parts)


def encode_pairs(tokenizer: "Tokenizer", pairs: Sequence[tuple[str, str]]) -> tuple[list[Any], list[int]]:
    """Return the token ids of each context with its continuation, and how many tokens the context alone has.

    The same as encoding the joined texts. Where the tokenizer surely cuts before a space that stands between two other
    characters, as GPT-2's byte-level pattern does, what precedes the last such space of a context is encoded once.
    """
    contexts = list(dict.fromkeys(context for context, _ in pairs))
    cuts = {context: _last_cut(context) if _cuts_at_spaces(tokenizer) else 0 for context in contexts}
    heads = dict(zip(contexts, encode_batch(tokenizer, [text[: cuts[text]] for text in contexts]), strict=True))
    own = encode_batch(tokenizer, [text[cuts[text] :] for text in contexts])
    n_tokens = {text: len(heads[text]) + len(ids) for text, ids in zip(contexts, own, strict=True)}
    tails = encode_batch(tokenizer, [context[cuts[context] :] + continuation for context, continuation in pairs])
    wholes = [[*heads[context], *tail] for (context, _), tail in zip(pairs, tails, strict=True)]
    return wholes, [n_tokens[context] for context, _ in pairs]


def _cuts_at_spaces(tokenizer: "Tokenizer") -> bool:
    from tokenizers.pre_tokenizers import ByteLevel

    before = tokenizer.pre_tokenizer
    return tokenizer.normalizer is None and isinstance(before, ByteLevel) and bool(before.use_regex)


def _last_cut(text: str) -> int:
    """Return where the last space between two other characters stands; 0 where there is none."""
    at = text.rfind(" ", 0, max(0, len(text) - 1))
    while at > 0 and (text[at - 1].isspace() or text[at + 1].isspace()):
        at = text.rfind(" ", 0, at)
    return max(0, at)
