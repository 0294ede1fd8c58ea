"""Pairs of context and continuation: the ids of the joined text, whatever the tokenizer and the spaces."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from openclimb.corpus.tokenizer import (
    END,
    Ends,
    copy_tokenizer,
    encode_batch,
    encode_pairs,
    ends_of,
    load_tokenizer,
    same_ids,
    train_tokenizer,
)
from openclimb.errors import ConfigError

TEXT = "It's 12 o'clock;  the quick  brown fox's (best) friend,\n\nAnn, met Bea.\tShe was  glad: 3.5 times!"
PIECES = st.sampled_from(
    ["a", "fox", " ", "  ", "\n", "\t", "'s", "12", ".", "é", "\u3000", "\u00a0", "\x1c", "Ann", "(", "o'"]
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)


def joined(tokenizer: Tokenizer, pairs: list[tuple[str, str]]) -> tuple[list[list[int]], list[int]]:
    wholes = encode_batch(tokenizer, [context + continuation for context, continuation in pairs])
    return wholes, [len(ids) for ids in encode_batch(tokenizer, [context for context, _ in pairs])]


def byte_level(folder: Path) -> Tokenizer:
    train_tokenizer([TEXT] * 5, 320, folder / "tokenizer.json")
    return load_tokenizer(folder / "tokenizer.json")


def test_pairs_are_encoded_as_their_joined_texts(tmp_path_factory) -> None:
    tokenizer = byte_level(tmp_path_factory.mktemp("tokenizer"))

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
    def check(pairs: list[tuple[str, str]]) -> None:
        assert encode_pairs(tokenizer, pairs) == joined(tokenizer, pairs)

    check()


def test_a_tokenizer_that_merges_over_spaces_is_encoded_whole() -> None:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(["so far so good so far"] * 9, trainer)
    pairs = [("so far so", " good"), ("so far so", " far")]
    assert encode_pairs(tokenizer, pairs) == joined(tokenizer, pairs)


def test_what_a_file_says_of_truncation_and_padding_is_left_out(tmp_path: Path) -> None:
    whole = byte_level(tmp_path)
    cutting = Tokenizer.from_str(whole.to_str())
    cutting.enable_truncation(4)
    cutting.enable_padding(length=64)
    cutting.save(str(tmp_path / "cutting.json"))
    loaded = load_tokenizer(tmp_path / "cutting.json")
    assert encode_batch(loaded, [TEXT, "a"]) == encode_batch(whole, [TEXT, "a"])
    assert ends_of(tmp_path / "cutting.json") == ends_of(tmp_path / "tokenizer.json")


def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    train_tokenizer([TEXT] * 5, 320, path)
    first = load_tokenizer(path)
    assert load_tokenizer(path) is first
    train_tokenizer([TEXT] * 5, 280, path)
    assert load_tokenizer(path).get_vocab_size() == 280


def test_tokenizers_are_the_same_that_give_texts_starts_and_ends_the_same_ids(tmp_path: Path) -> None:
    ours = byte_level(tmp_path)
    written = Tokenizer.from_str(ours.to_str())
    written.enable_truncation(4)
    for name, same in (("<|endoftext|>", True), ("Q", False)):
        first = [(name, written.token_to_id(name))]
        written.post_processor = processors.TemplateProcessing(single=f"{name} $A", special_tokens=first)
        written.save(str(tmp_path / "written.json"))
        assert same_ids(tmp_path / "tokenizer.json", tmp_path / "written.json") == same
    train_tokenizer([TEXT, "another"] * 5, 320, tmp_path / "other.json")
    assert not same_ids(tmp_path / "tokenizer.json", tmp_path / "other.json")


def words(path: Path, special: list[str], plain: list[str]) -> Tokenizer:
    """Write a tokenizer with these special tokens and these plain words."""
    tokenizer = byte_level(path.parent)
    tokenizer.add_tokens(plain)
    tokenizer.add_special_tokens(special)
    vocabulary = json.loads(tokenizer.to_str())
    vocabulary["added_tokens"] = [each for each in vocabulary["added_tokens"] if each["content"] != END]
    path.write_text(json.dumps(vocabulary))
    return load_tokenizer(path)


@pytest.mark.parametrize(
    ("special", "plain", "config", "start", "end"),
    [
        (["<eos>"], ["</s>"], None, "<eos>", "<eos>"),  # a plain word ends nothing
        (["</s>", "<|im_end|>"], [], None, "</s>", "</s>"),
        (["</s>", "<|im_end|>"], [], {"eos_token": "<|im_end|>"}, "<|im_end|>", "<|im_end|>"),
        (["<s>", "</s>"], [], {"eos_token": {"content": "</s>"}, "bos_token": "<s>"}, "</s>", "</s>"),
        (["<s>", "</s>"], [], {"eos_token": "</s>", "bos_token": "<s>", "add_bos_token": True}, "<s>", "</s>"),
        ([], ["stop"], {"eos_token": "stop"}, "stop", "stop"),
    ],
)
def test_the_end_is_tokenizer_configs_or_a_special_token(
    tmp_path: Path, special: list[str], plain: list[str], config: dict[str, object] | None, start: str, end: str
) -> None:
    path = tmp_path / "given" / "tokenizer.json"
    path.parent.mkdir()
    tokenizer = words(path, special, plain)
    if config:
        (path.parent / "tokenizer_config.json").write_text("\ufeff" + json.dumps({"model_max_length": 8, **config}))
    copy_tokenizer(path, tmp_path / "tokenizer.json")
    for place in (path, tmp_path / "tokenizer.json"):  # a copy says the same
        assert ends_of(place) == Ends(tokenizer.token_to_id(start), tokenizer.token_to_id(end))


def test_what_a_tokenizer_puts_first_is_the_start_unless_its_config_says_not(
    tmp_path: Path, with_start: Callable[[Path], int]
) -> None:
    path = tmp_path / "tokenizer.json"
    byte_level(tmp_path)
    start = with_start(path)
    assert ends_of(path) == Ends(start, 0)
    assert ends_of(path).around == ([start], [0])
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>", "add_bos_token": false}')
    assert ends_of(path) == Ends(0, 0)
    assert ends_of(path).around == ([], [0])


def test_an_end_that_is_not_known_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "given" / "tokenizer.json"
    path.parent.mkdir()
    words(path, ["<pad>"], ["</s>"])
    with pytest.raises(ConfigError, match=r"which token .* ends a document .*<pad>") as caught:
        ends_of(path)
    assert "eos_token" in caught.value.fix
    (path.parent / "tokenizer_config.json").write_text('{"eos_token": "<end>"}')
    with pytest.raises(ConfigError, match="names the token '<end>', which tokenizer.json does not have"):
        ends_of(path)
    (path.parent / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ConfigError, match="cannot be read"):
        ends_of(path)


def test_text_that_looks_like_a_special_token_is_text(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path)
    text = "before <|endoftext|> after"
    [ids] = encode_batch(tokenizer, [text])
    assert ends_of(tmp_path / "tokenizer.json").end not in ids
    assert tokenizer.decode(ids) == text
    assert encode_pairs(tokenizer, [("a <|endof", "text|> b")]) == joined(tokenizer, [("a <|endof", "text|> b")])


def test_long_texts_are_encoded_in_pieces_with_the_same_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tokenizer.json"
    train_tokenizer(["as it goes, one word after the other"] * 3, 300, path)
    loaded = load_tokenizer(path)
    text = "one word after the other, as it  goes\n" * 20
    (whole,) = encode_batch(loaded, [text])
    monkeypatch.setattr("openclimb.corpus.tokenizer.PIECE", 50)
    pieces, short = encode_batch(loaded, [text, "as it goes"])
    assert list(pieces) == whole
    assert loaded.decode(list(short)) == "as it goes"
    (word,) = encode_batch(loaded, ["x" * 120])
    assert loaded.decode(list(word)) == "x" * 120
