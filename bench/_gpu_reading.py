"""What is measured of reading on a GPU: evaluation of proxies, MiniLM's embeddings, the label pass."""

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from _gpu_text import documents
from _gpu_training import TINY, TINY_VOCAB, wait
from openclimb.clustering.embed import load_embedder
from openclimb.clustering.fit import fit
from openclimb.clustering.label import label
from openclimb.config.scales import preset
from openclimb.config.schema import EmbedSettings, ProxySettings
from openclimb.config.sizes import shape_of, vocabulary_of
from openclimb.corpus.reading import units as corpus_units
from openclimb.corpus.reading.units import read_units, survey
from openclimb.engines.local import LocalEngine
from openclimb.progress import Progress
from openclimb.proxy.evaluate import log_likelihoods
from openclimb.proxy.model import StackedDecoder
from openclimb.proxy.stack.memory import READING_SHARE, free_memory
from openclimb.workspace.context import StageContext

if TYPE_CHECKING:
    from gpu import Report

CONTEXT, OPTION, OPTIONS = 64, 12, 4  # tokens, tokens, options an item
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
MINILM_VOCAB, MINILM_LONGEST, MINILM_TOKENS = 30_522, 512, 256  # entries, positions, tokens that are read of a text
DOCUMENT = 2000  # characters


def evaluation(report: "Report") -> None:
    """Score items of four options with one model and with a stack."""
    cases = [("62M", 1, 4000), ("5M", 16, 4000)] if not report.tiny else [("tiny", 2, 50)]
    for size, n_models, n_items in cases:
        if report.tiny:
            proxy, vocab_size = replace(TINY, sequence=64), TINY_VOCAB
        else:
            proxy, vocab_size = ProxySettings(**shape_of(size)), vocabulary_of(size)
        model = StackedDecoder(proxy, vocab_size, range(n_models)).to(report.device)
        packed = items(n_items, vocab_size)
        log_likelihoods(model, packed, model.longest, report.device)
        wait(report.device)
        if report.device == "cuda":
            held, free = torch.cuda.memory_allocated(), free_memory()
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        log_likelihoods(model, packed, model.longest, report.device)
        wait(report.device)
        seconds = time.perf_counter() - began
        case = f"{size} × {n_models}, items of {OPTIONS} options"
        report.row(case, "items/s, all models", round(n_models * n_items / seconds))
        if report.device == "cuda":
            taken = (torch.cuda.max_memory_allocated() - held) / free
            report.row(case, "share of the free memory, at most planned", round(taken, 3), READING_SHARE)


def items(n: int, vocab_size: int) -> dict[str, np.ndarray]:
    """Return packed items of random tokens: each option of an item behind the same context."""
    rng = np.random.default_rng(0)
    contexts = rng.integers(1, vocab_size, (n, 1, CONTEXT)).repeat(OPTIONS, 1)
    tokens = np.concatenate([contexts, rng.integers(1, vocab_size, (n, OPTIONS, OPTION))], 2)
    n_pairs = n * OPTIONS
    return {
        "tokens": tokens.reshape(-1).astype(np.int32),
        "lengths": np.full(n_pairs, CONTEXT + OPTION, dtype=np.int32),
        "contexts": np.full(n_pairs, CONTEXT, dtype=np.int32),
        "item": np.arange(n_pairs, dtype=np.int32) // OPTIONS,
        "gold": np.zeros(n, dtype=np.int32),
    }


def embedding(report: "Report") -> None:
    """Embed documents with MiniLM, and label them, which reads, embeds, assigns, scores and writes."""
    n = 40 if report.tiny else 4000
    texts = [text for text in documents("packages", n * DOCUMENT * 2, DOCUMENT) if len(text) > DOCUMENT // 2][:n]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = report.minilm or str(write_minilm(root / "minilm", texts, report.tiny))
        weights = "MiniLM" if report.minilm else "random weights in MiniLM's shape"
        embed = EmbedSettings(embedder="sentence-transformers", model=model)
        encode = load_embedder(embed, root)
        encode(texts[: min(512, n)])
        began = time.perf_counter()
        encode(texts)
        bare = n / (time.perf_counter() - began)
        report.row(f"{weights}, {DOCUMENT} characters", "documents/s", round(bare, 1))
        for workers in (1,) if report.tiny else (1, 4):
            seconds = label_all(texts, embed, root / f"{workers}", workers, report.tiny)
            report.row(f"label pass, {workers} processes", "documents/s", round(n / seconds, 1), round(bare, 1))


def label_all(texts: list[str], embed: EmbedSettings, root: Path, workers: int, tiny: bool) -> float:
    """Fit clusters on documents and label them all; return the seconds of labelling, models loaded before."""
    (root / "clusters").mkdir(parents=True)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (root / "corpus.jsonl").write_text(lines, encoding="utf-8")
    config = preset("laptop")
    corpus = replace(config.corpus, paths=(str(root / "corpus.jsonl"),))
    clusters = replace(config.clusters, sample=len(texts) // 4, k=4 if tiny else 64)
    context = StageContext(root / "corpus", LocalEngine(workers), Progress())
    corpus_units.UNIT_BYTES = 1_000_000
    survey(context, corpus)
    units = read_units(root / "corpus")
    tokens = replace(config.tokens, vocab_size=TINY_VOCAB if tiny else config.tokens.vocab_size)
    fit(context.at(root / "clusters"), units, corpus, embed, clusters, tokens)
    seconds = 0.0
    for turn in ("first", "second"):  # the first also starts the processes
        (root / turn).mkdir()
        began = time.perf_counter()
        label(context.at(root / turn), units, root / "clusters", corpus, embed, config.quality)
        seconds = time.perf_counter() - began
    context.engine.release()
    return seconds


def write_minilm(out: Path, texts: list[str], tiny: bool) -> Path:
    """Write a sentence-transformers folder of MiniLM's shape with random weights and a WordPiece tokenizer."""
    from tokenizers.implementations import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    shape: dict[str, Any] = {**MINILM, "num_hidden_layers": 1} if tiny else MINILM
    vocab_size = 400 if tiny else MINILM_VOCAB
    pieces = BertWordPieceTokenizer(lowercase=True)
    pieces.train_from_iterator(texts, vocab_size=vocab_size, show_progress=False)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=pieces._tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.model_max_length = MINILM_LONGEST
    fast.save_pretrained(out)
    form = BertConfig(vocab_size=vocab_size, max_position_embeddings=MINILM_LONGEST, **shape)
    BertModel(form, add_pooling_layer=False).save_pretrained(out)
    modules = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    kinds = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules.items())
    ]
    pooling = {"word_embedding_dimension": MINILM["hidden_size"], "pooling_mode_mean_tokens": True}
    (out / "modules.json").write_text(json.dumps(kinds))
    (out / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": MINILM_TOKENS, "do_lower_case": False})
    )
    for path in modules:
        (out / path).mkdir(exist_ok=True)
    (out / "1_Pooling" / "config.json").write_text(json.dumps({**pooling, "pooling_mode_cls_token": False}))
    return out
