"""The tokenizer: a byte-level BPE trained on the sample, or any tokenizer.json."""

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from openclimb.errors import ConfigError
from openclimb.workspace.files import atomic, file_stamps

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PIECE = 1 << 18  # characters of a text that are encoded at once
END = "<|endoftext|>"  # stands between documents
END_NAMES = (END, "</s>", "<eos>", "<|end_of_text|>", "<|im_end|>", "[SEP]")


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
    return tokenizer


def end_id(tokenizer: "Tokenizer") -> int:
    """Return the id of the token that ends a document. Raises ConfigError when the tokenizer has none."""
    for name in END_NAMES:
        found = tokenizer.token_to_id(name)
        if found is not None:
            return int(found)
    raise ConfigError("the tokenizer has no token that ends a document", f"add one of: {', '.join(END_NAMES)}")


def start_id(tokenizer: "Tokenizer") -> int:
    """Return the id of the token before a scored text: what the tokenizer itself puts first, else the end token."""
    first = tokenizer.encode("").ids
    return int(first[0]) if first else end_id(tokenizer)


def frame(tokenizer: "Tokenizer") -> tuple[list[int], list[int]]:
    """Return the ids that models read before and after a document: its start, unless that is the end token; its end.

    The end token of the document before stands there anyhow.
    """
    start, end = start_id(tokenizer), end_id(tokenizer)
    return [start] if start != end else [], [end]


def same_ids(one: "Tokenizer", other: "Tokenizer") -> bool:
    """Return whether two tokenizers give every text the same ids, and the same ids to its start and its end."""
    parts = []
    for tokenizer in (one, other):
        raw = json.loads(tokenizer.to_str())
        encoding = [raw[name] for name in ("added_tokens", "normalizer", "pre_tokenizer", "model")]
        parts.append([encoding, start_id(tokenizer), end_id(tokenizer)])
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
