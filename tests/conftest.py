"""Small real text and tasks, models of the forms that users bring, and what the tests of several parts share."""

import inspect
import json
import struct
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from tokenizers import Tokenizer, processors

from openclimb.cli.main import main
from openclimb.clustering import describe
from openclimb.testing.fixtures import make_tiny_tasks, make_tiny_workspace

DATA = Path(__file__).parent / "data"
KINDS = ("code", "manual", "names")

# The same examples on every machine, so that a change passes or fails for what it changes; `make slow` draws new ones.
slow = [hypothesis.HealthCheck.too_slow]  # on a busy machine nothing of the test is at fault
hypothesis.settings.register_profile("fixed", derandomize=True, suppress_health_check=slow)
hypothesis.settings.register_profile("new")
hypothesis.settings.load_profile("fixed")


@pytest.fixture(scope="session")
def tiny_corpus() -> Path:
    """A JSONL file with the columns text, domain and id."""
    return DATA / "corpus.jsonl"


@pytest.fixture(scope="session")
def tiny_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two task files."""
    return make_tiny_tasks(tmp_path_factory.mktemp("tasks"), DATA / "passages.jsonl")


@pytest.fixture
def with_start() -> Callable[[Path], int]:
    """Return a function that gives a tokenizer.json a token to put first, as Llama's have it, and returns its id."""

    def change(path: Path) -> int:
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.add_special_tokens(["<|start|>"])
        start = int(tokenizer.token_to_id("<|start|>"))
        first = processors.TemplateProcessing(single="<|start|> $A", special_tokens=[("<|start|>", start)])
        tokenizer.post_processor = first
        tokenizer.save(str(path))
        return start

    return change


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_corpus: Path, tiny_tasks: Path) -> Path:
    """A workspace that was run to its end. Tests that change it copy it first."""
    root = make_tiny_workspace(tmp_path_factory.mktemp("line") / "run", tiny_corpus, tiny_tasks)
    assert main(["run", str(root), "--quiet"]) == 0
    return root


def real_texts(n_each: int) -> list[tuple[str, str]]:
    """Return (kind, text), n_each of each kind in turn."""
    import argparse
    import email.message
    import http.client
    import pydoc_data.topics
    import tarfile
    import typing
    import zipfile

    code = "\n".join(inspect.getsource(m) for m in (argparse, tarfile, zipfile, typing, http.client, email.message))
    manual = "\n".join(topic for _, topic in sorted(pydoc_data.topics.topics.items()))
    names = "\n".join(unicodedata.name(chr(i), "").lower() for i in range(0x20, 0x3000))
    size = 900
    pieces = [[text[i : i + size] for i in range(0, len(text) - size, size)][:n_each] for text in (code, manual, names)]
    return [(kind, text) for row in zip(*pieces, strict=True) for kind, text in zip(KINDS, row, strict=True)]


@pytest.fixture(autouse=True, scope="session")
def small_map() -> None:
    """Draw small maps: t-SNE takes more time than all the rest of a small fit."""
    describe.MAP_SIZE = 40


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the speed of this machine's cores, which a plan measures once, out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def texts() -> list[tuple[str, str]]:
    return real_texts(120)


@pytest.fixture(scope="session")
def corpus_file(texts: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "docs.jsonl"
    path.write_text("".join(json.dumps({"text": text, "kind": kind}) + "\n" for kind, text in texts), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def static_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model2vec folder of the form that `distill` writes, with random vectors for letters and a few words."""
    from model2vec import StaticModel
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = ["[PAD]", "[UNK]", "the", "of", "letter", "def", "self", "return", "import", "object", "value", "with"]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    vectors = np.random.default_rng(0).normal(size=(len(words), 16)).astype(np.float32)
    folder = tmp_path_factory.mktemp("models") / "static"
    StaticModel(vectors, tokenizer, config={"normalize": False}).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def transformer_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder with a BERT of one layer and random weights."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    root = tmp_path_factory.mktemp("models")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{c}" for c in "aeinorst"),
    ]
    BertTokenizerFast({word: i for i, word in enumerate(words)}).save_pretrained(str(root / "bert"))
    torch.manual_seed(0)
    shape = BertConfig(len(words), 16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertModel(shape).save_pretrained(str(root / "bert"))
    model = SentenceTransformer(modules=[Transformer(str(root / "bert"), max_seq_length=64), Pooling(16)], device="cpu")
    model.save(str(root / "sentence"))
    return root / "sentence"


@pytest.fixture
def write_fasttext(tmp_path: Path) -> Callable[[str, dict[str, dict[str, float]]], Path]:
    """Return a function that writes a fastText classifier: {label: {word: weight}}, softmax of the mean weight."""

    def write(name: str, weights: dict[str, dict[str, float]]) -> Path:
        words = ["</s>", *sorted({word for row in weights.values() for word in row})]
        labels = sorted(weights)
        vectors = np.eye(len(words), dtype="<f4")  # each word is its own dimension
        outputs = np.array([[weights[label].get(word, 0.0) for word in words] for label in labels], dtype="<f4")
        arguments = (len(words), 5, 1, 1, 5, 1, 3, 3, 0, 0, 0, 100)  # dim … loss 3 = softmax, model 3 = supervised
        parts = [struct.pack("<ii12id", 793712314, 12, *arguments, 0.0)]
        parts.append(struct.pack("<iiiqq", len(words) + len(labels), len(words), len(labels), 1, -1))
        for entries, kind in ((words, 0), (labels, 1)):
            parts += [entry.encode() + b"\0" + struct.pack("<qb", 1, kind) for entry in entries]
        for matrix in (vectors, outputs):
            parts.append(b"\0" + struct.pack("<qq", *matrix.shape) + matrix.tobytes())
        path = tmp_path / name
        path.write_bytes(b"".join(parts))
        return path

    return write


@pytest.fixture
def make_classifier(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a BERT classifier of one layer with random weights: name, labels, options."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    def make(name: str, labels: list[str], **options: Any) -> Path:
        words = [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[MASK]",
            *"abcdefghijklmnopqrstuvwxyz",
            *(f"##{c}" for c in "aeinorst"),
        ]
        BertTokenizerFast({word: i for i, word in enumerate(words)}).save_pretrained(str(tmp_path / name))
        torch.manual_seed(0)
        shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "initializer_range": 0.5}
        config = BertConfig(len(words), 16, **shape, id2label=dict(enumerate(labels)), **options)
        BertForSequenceClassification(config).save_pretrained(str(tmp_path / name))
        return tmp_path / name

    return make
