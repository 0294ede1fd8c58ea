"""What is counted of an embedder: FLOPs a document, or a rate on cores for one that does few."""

import json
from dataclasses import dataclass
from pathlib import Path

from openclimb.config.schema import EmbedSettings
from openclimb.planning import rates

BYTES_A_TOKEN = 4.2  # of English, for the vocabularies of embedders
LONGEST = 512  # tokens that a model reads whose folder does not say it


@dataclass(frozen=True)
class Embedder:
    """An embedder: name for people, dimensions; `rate`: characters a second of a core, 0 for a transformer."""

    title: str
    dim: int
    rate: float = 0.0
    fits: bool = False  # to the sample
    depth: int = 0
    width: int = 0
    layer: int = 0  # parameters of a layer
    longest: int = LONGEST  # tokens that it reads of a document
    known: bool = True

    def flops(self, n_bytes: float) -> float:
        """Return the FLOPs of embedding the beginning of a document, of so many bytes: the layers, and attention."""
        n = min(self.longest, n_bytes / BYTES_A_TOKEN)
        return self.depth * n * (2.0 * self.layer + 4.0 * self.width * n)


def _layers(width: int, inner: int, gated: bool = False) -> int:
    return 4 * width**2 + (3 if gated else 2) * width * inner


MINILM = Embedder("MiniLM", 384, depth=6, width=384, layer=_layers(384, 1536), longest=256)
KNOWN = {
    "all-MiniLM-L6-v2": MINILM,
    "stella_en_400M_v5": Embedder(
        "stella_en_400M_v5", 1024, depth=24, width=1024, layer=_layers(1024, 4096, gated=True)
    ),
}


def embedder_of(settings: EmbedSettings) -> Embedder:
    """Return what is counted of the settings' embedder: from its folder, or by its name; else it counts as MiniLM."""
    if settings.embedder == "hashing":
        return Embedder("hashing", 256, rates.EMBED["hashing"], fits=True)
    if settings.embedder == "model2vec":
        return Embedder("a static model", 256, rates.EMBED["model2vec"])
    name = settings.model.rstrip("/").rpartition("/")[2]
    if settings.embedder != "sentence-transformers":
        return Embedder(settings.embedder, 256, rates.EMBED["model2vec"], known=False)
    return _from_folder(Path(settings.model).expanduser()) or KNOWN.get(name) or _unknown(name)


def _unknown(name: str) -> Embedder:
    return Embedder(name, MINILM.dim, depth=6, width=384, layer=MINILM.layer, longest=256, known=False)


def _from_folder(folder: Path) -> Embedder | None:
    """Return what a sentence-transformers folder says of its model, None where it has not the keys of a BERT."""
    try:
        shape = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        width, depth, inner = (int(shape[key]) for key in ("hidden_size", "num_hidden_layers", "intermediate_size"))
        path = folder / "sentence_bert_config.json"
        about = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        longest = int(about.get("max_seq_length") or shape.get("max_position_embeddings", LONGEST))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Embedder(folder.name, width, depth=depth, width=width, layer=_layers(width, inner), longest=longest)
