"""The n-gram model: probabilities that sum to one, Kneser-Ney as in the books, smooth in the mixture."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from openclimb.search.predictors import ngram
from openclimb.search.predictors.ngram import count_ngrams, discounts_of

SIZE, END = 24, 0
RNG = np.random.default_rng(5)
CHAIN = RNG.dirichlet(np.full(SIZE, 0.15), (2, SIZE))  # the next token by the last one, in each of two domains


def walk(domain: int, n: int, seed: int) -> list[int]:
    rng, tokens = np.random.default_rng(seed), [END]
    for _ in range(n - 1):
        tokens.append(int(rng.choice(SIZE, p=CHAIN[domain, tokens[-1]])))
    return tokens


def write_tokens(folder: Path, domains: list[list[int]], pairs: list[tuple[list[int], list[int]]]) -> Path:
    """Write packed domains, and a task of (context, right answer) pairs with one option and one byte a token each."""
    (folder / "tasks").mkdir(parents=True)
    rows = []
    for number, tokens in enumerate(domains):
        np.array(tokens, dtype=np.uint16).tofile(folder / f"{number}.bin")
        rows.append(
            {"name": f"domain-{number}", "file": f"{number}.bin", "n_tokens": len(tokens), "n_read": len(tokens)}
        )
    facts = {"dtype": "uint16", "eos": END, "vocab_size": SIZE, "domains": rows}
    (folder / "domains.json").write_text(json.dumps(facts))
    spans = [[END, *context, *answer] for context, answer in pairs]
    arrays = {
        "tokens": np.concatenate([np.array(span, dtype=np.int32) for span in spans]),
        "lengths": np.array([len(span) for span in spans], dtype=np.int32),
        "contexts": np.array([1 + len(context) for context, _ in pairs], dtype=np.int32),
        "bytes": np.array([len(answer) for _, answer in pairs], dtype=np.int32),
        "chars": np.ones(len(pairs), dtype=np.int32),
        "item": np.arange(len(pairs), dtype=np.int32),
        "gold": np.zeros(len(pairs), dtype=np.int32),
    }
    np.savez(folder / "tasks" / "task.npz", **{f"search/{name}": array for name, array in arrays.items()})
    return folder


def probability(order: int, tokens: list[int], context: list[int], token: int) -> float:
    """Modified Kneser-Ney of one domain that is read once, by dictionaries of sets: the plain way."""
    followers: dict[tuple[int, ...], dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for i in range(len(tokens) - order + 1):
        followers[tuple(tokens[i : i + order - 1])][tokens[i + order - 1]] += 1
    history = tuple(context[len(context) - order + 1 :])
    shorter = 1.0 / SIZE
    tables = [followers]
    for _ in range(order - 1):
        lower: dict[tuple[int, ...], dict[int, float]] = defaultdict(lambda: defaultdict(float))
        for before, counts in tables[-1].items():
            for last in counts:
                lower[before[1:]][last] += 1
        tables.append(lower)
    for table in reversed(tables):
        size = len(next(iter(table)))
        discounts = discounts_of(np.array([n for counts in table.values() for n in counts.values()]))
        counts = table.get(history[len(history) - size :] if size else (), {})
        total = sum(counts.values())
        if total:
            taken = {last: discounts[min(3, int(n))] for last, n in counts.items()}
            left = counts.get(token, 0.0) - taken.get(token, 0.0)
            shorter = (left + sum(taken.values()) * shorter) / total
    return shorter


@pytest.mark.parametrize("order", [2, 3])
def test_one_domain_read_once_has_the_probabilities_of_modified_kneser_ney(tmp_path: Path, order: int) -> None:
    tokens = walk(0, 400, 1)
    pairs = [(walk(0, 4, 10 + i)[1:], walk(0, 5, 50 + i)[1:]) for i in range(12)]
    ngrams = count_ngrams(write_tokens(tmp_path, [tokens], pairs), len(tokens), order)
    bits = [
        -np.log2([probability(order, tokens, [END, END, *context, *answer[:i]], answer[i]) for i in range(4)]).sum() / 4
        for context, answer in pairs
    ]
    assert ngrams.tasks == ("task",)
    assert ngrams.scores(np.ones((1, 1)))[0] == pytest.approx([-np.mean(bits)], rel=1e-5)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.999, 0.001), (0.6, 0.4), (0.0, 1.0)])
@pytest.mark.parametrize("most", [ngram.MOST_TOKENS, 300])
def test_the_probabilities_of_all_tokens_sum_to_one(
    tmp_path: Path, order: int, weights: tuple[float, float], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ngram, "MOST_TOKENS", most)
    contexts = [walk(0, 4, 3)[1:], walk(1, 4, 4)[1:]]
    pairs = [(context, [token]) for context in contexts for token in range(SIZE)]
    ngrams = count_ngrams(write_tokens(tmp_path, [walk(0, 500, 1), walk(1, 200, 2)], pairs), 900, order)
    chances = ngrams._probabilities(np.array(weights))[ngrams.scored]
    assert chances.min() > 0
    assert chances.reshape(2, SIZE).sum(1) == pytest.approx([1.0, 1.0], rel=1e-5)


def test_text_like_the_task_helps_and_scores_move_little_with_the_weights(tmp_path: Path) -> None:
    pairs = [(walk(1, 5, 100 + i)[1:], walk(1, 6, 200 + i)[1:]) for i in range(60)]
    domains = [walk(0, 3000, 1), walk(1, 3000, 2)]
    ngrams = count_ngrams(write_tokens(tmp_path, domains, pairs), 3000, 2)
    shares = np.linspace(0, 1, 21)
    scores = ngrams.scores(np.stack([1 - shares, shares], axis=1))[:, 0]
    assert (np.diff(scores[:18]) > 0).all()  # at the end a little of the other domain smooths better than none
    near = ngrams.scores(np.array([[0.5, 0.5], [0.501, 0.499]]))[:, 0]
    assert abs(near[1] - near[0]) < 0.01 * (scores[-1] - scores[0])


def test_copies_of_a_domain_are_one_domain(tmp_path: Path) -> None:
    pairs = [(walk(0, 5, 100 + i)[1:], walk(0, 6, 200 + i)[1:]) for i in range(9)]
    tokens = walk(0, 600, 1)
    ngrams = count_ngrams(write_tokens(tmp_path, [tokens, tokens], pairs), 500, 3)
    scores = ngrams.scores(np.array([[1.0, 0.0], [0.0, 1.0], [0.3, 0.7]]))[:, 0]
    assert scores == pytest.approx(scores[:1].repeat(3), rel=1e-5)


def test_a_task_without_search_items_has_no_score(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path, [walk(0, 300, 1)], [([1, 2], [3])])
    with np.load(folder / "tasks" / "task.npz") as stored:
        empty = {name: stored[name][:0] for name in stored.files}
    np.savez(folder / "tasks" / "reported.npz", **empty)
    assert count_ngrams(folder, 300, 2).tasks == ("task",)
