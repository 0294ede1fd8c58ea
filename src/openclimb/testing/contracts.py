"""Contract tests for the seams: what your own part must do, checked as ours is.

    from openclimb.testing.contracts import check_predictor, check_proposer

    def test_mine():
        check_predictor("my_package.my_module:make_predictor")
        check_proposer("my_package.my_module:propose")

Each raises AssertionError with what is wrong.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openclimb.engines.engine import Engine, Resources
from openclimb.mixture import Domain
from openclimb.search.acquisition.spec import make_spec
from openclimb.workspace.observations import observed
from openclimb.workspace.trials import Trial

ODD_TEXTS = ("A plain sentence of English.", "", "    ", "ünïcödé ☃ 漢字", "one " * 5000, "{}[]<>", "7 " * 50, "\n\n\n")

SCALES = ("quality", "educational_value", "informational_value", "no_advertisement", "cultural_value")


def check_embedder(name: str, model: str = "") -> None:
    """Check an embedder by its name in the settings: one unit vector a text, whatever its neighbours, the same again.

    `model` is the folder or hub name that it is given. Odd texts are among those it gets: empty, blank, very long.
    """
    from openclimb.clustering.embed import fit_embedder, load_embedder
    from openclimb.config.schema import EmbedSettings

    settings = EmbedSettings(embedder=name, model=model)
    with tempfile.TemporaryDirectory() as folder:
        fit_embedder(settings, ODD_TEXTS, 0, Path(folder))
        embed = load_embedder(settings, Path(folder))
    together, again = embed(ODD_TEXTS), embed(ODD_TEXTS)
    assert together.shape[0] == len(ODD_TEXTS), "one vector a text"
    assert np.isfinite(together).all(), "vectors must be finite"
    assert np.allclose(np.linalg.norm(together[0]), 1.0, atol=1e-4), "vectors must have unit norm"
    assert np.array_equal(together, again), "the same texts must give the same vectors"
    alone = np.concatenate([embed([text]) for text in ODD_TEXTS])
    assert np.allclose(together, alone, atol=1e-4), "a text's vector must not depend on its neighbours"


def check_scorer(
    name: str,
    fasttext: Mapping[str, str] | None = None,
    embed: Callable[[Sequence[str]], NDArray[np.float32]] | None = None,
) -> None:
    """Check a quality scorer by its name in the settings: finite scores, one row a text, whatever its neighbours.

    `fasttext`: the classifiers that it is given, as in `quality.fasttext`; `embed`: what makes the vectors of a scorer
    that reads them.
    """
    from openclimb.config.schema import QualitySettings
    from openclimb.quality.scorers import load_scorers

    for scorer in load_scorers(QualitySettings(scorers=(name,), fasttext=dict(fasttext or {}))):
        vectors = [embed([text]) if embed else None for text in ODD_TEXTS]
        # Its shape and finite numbers are checked at every call.
        together = scorer(ODD_TEXTS, embed(ODD_TEXTS) if embed else None)
        alone = np.concatenate([scorer([text], one) for text, one in zip(ODD_TEXTS, vectors, strict=True)])
        assert np.allclose(together, alone, atol=1e-5), "a text's scores must not depend on its neighbours"


def check_annotator(name: str, scales: Sequence[str] = SCALES) -> None:
    """Check an annotator, `package.module:function`: for each text a dict with a number from 0 to 5 for every scale, or
    an empty one; the same whatever the text's neighbours.

    `scales`: those of your rubric.toml, if you changed them. One that asks a model which draws its answers will fail.
    """
    from openclimb.config.registry import load
    from openclimb.quality.annotation.rubric import Unusable, checked

    annotate = load("annotator", name)

    def labels(texts: Sequence[str]) -> list[dict[str, float]]:
        found = annotate(list(texts))
        assert isinstance(found, list), "a list is to be returned"
        assert len(found) == len(texts), "one dict a text"
        try:
            return [checked(scores, scales) if scores != {} else {} for scores in found]
        except Unusable as why:
            raise AssertionError(f"{why.reason}: {why.detail}") from None

    together, alone = labels(ODD_TEXTS), [labels([text])[0] for text in ODD_TEXTS]
    assert any(together), "some text must have a label"
    assert together == alone, "a text's scores must not depend on its neighbours"


def check_predictor(name: str) -> None:
    """Check a predictor by its name in the settings: shapes, finite numbers, repeatability, and that it learns.

    It is given constant scores, one trial, more domains than trials, duplicates, and 60 trials of a smooth law.
    """
    from openclimb.search.predictors.predictor import fit_predictor

    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(5), 90)
    scores = np.sqrt(weights) @ np.array([3.0, -1.0, 0.5, 0.0, 2.0]) + 0.01 * rng.standard_normal(90)
    wide = rng.dirichlet(np.ones(40), 6)
    cases = {
        "one trial": (weights[:1], scores[:1]),
        "two trials": (weights[:2], scores[:2]),
        "constant scores": (weights[:20], np.full(20, 0.25)),
        "the same mixture again and again": (np.repeat(weights[:1], 8, axis=0), scores[:8]),
        "duplicates": (np.repeat(weights[:6], 3, axis=0), np.repeat(scores[:6], 3)),
        "more domains than trials": (wide, wide[:, 0]),
        "some scores missing": (weights[:30], np.where(np.arange(30) % 5 == 0, np.nan, scores[:30])),
        "tiny scores": (weights[:20], 1e-6 * scores[:20]),
    }
    for case, (rows, values) in cases.items():
        mean, deviation = fit_predictor(rows, values, name).predict(rows)
        assert mean.shape == deviation.shape == (len(rows),), (
            f"{case}: predict must return two arrays of one number a mixture"
        )
        assert np.isfinite(mean).all(), f"{case}: predictions must be finite"
        assert np.isfinite(deviation).all(), f"{case}: standard deviations must be finite"
        assert (deviation >= 0).all(), f"{case}: a standard deviation is not negative"
    first, again = (fit_predictor(weights[:60], scores[:60], name).predict(weights[60:])[0] for _ in range(2))
    assert np.array_equal(first, again), "the same trials must give the same predictions"
    learnt = float(np.corrcoef(first, scores[60:])[0, 1])
    assert learnt > 0.5, f"60 trials of a smooth law must be learnt (correlation with unseen scores {learnt:.2f})"


def check_proposer(name: str, predictor: str = "gp") -> None:
    """Check a proposer by its name in the settings: shapes, simplex, caps, and that it is a function of the trials.

    `predictor` is the one in the settings that it is given. It is asked without trials, with one, with constant and
    missing scores, and with more domains than trials.
    """
    from openclimb.config.schema import SearchSettings
    from openclimb.search.propose import next_batch

    rng = np.random.default_rng(0)
    for n_domains, n_completed, n in ((2, 0, 3), (5, 0, 8), (5, 1, 2), (5, 24, 6), (30, 8, 4)):
        domains = [Domain(f"domain-{i:02d}", 1000 * (i + 1), max(0.4, 1.5 / n_domains)) for i in range(n_domains)]
        weights = rng.dirichlet(np.ones(n_domains), n_completed)
        for case, scores in (
            ("smooth scores", np.sqrt(weights).sum(1)),
            ("constant scores", np.zeros(n_completed)),
            ("a missing score", np.where(np.arange(n_completed) == 1, np.nan, weights[:, 0])),
        ):
            completed = [_told(i, domains, weights[i], float(scores[i])) for i in range(n_completed)]
            settings = SearchSettings(proposer=name, predictor=predictor)
            seen = observed(completed)
            proposed = next_batch(
                seen, make_spec(domains, settings), n, 1, 7
            )  # raises where caps or simplex are broken
            again = next_batch(seen[::-1], make_spec(domains, settings), n, 1, 7)
            assert proposed.shape == (n, n_domains), f"{case}: one row a mixture, one column a domain"
            assert np.array_equal(proposed, again), f"{case}: the same trials must give the same mixtures, in any order"


def check_baseline(name: str, n: int = 24) -> None:
    """Check a baseline by its name: its rounds spend its trials; its proposals and its answer keep to caps and simplex,
    and are the same for the same trials, in any order of trials and domains.

    `n`: how many trials it is given. One with models of its own (`own_run`) is not checked.
    """
    from openclimb.baselines.baseline import answer_of, find_baseline
    from openclimb.search.acquisition.spec import SearchSpec
    from openclimb.search.propose import next_batch

    baseline, rng = find_baseline(name), np.random.default_rng(0)
    assert baseline.least_trials() <= n, f"it needs {baseline.least_trials()} trials"
    assert sum(baseline.rounds(n)) in (0, n), "its rounds must spend the trials that it is given, or none"
    domains = [Domain(f"domain-{i}", 1000 * (i + 1), 0.5) for i in range(4)]
    spec = SearchSpec(tuple(domains), baseline.predictor)
    turned = SearchSpec(tuple(domains[::-1]), baseline.predictor)
    completed: list[Trial] = []
    for iteration, size in enumerate(baseline.rounds(n)):
        seen = observed(completed)
        rows = next_batch(seen, spec, size, iteration, 7, baseline.propose)  # raises where caps or simplex are broken
        again = next_batch(seen[::-1], turned, size, iteration, 7, baseline.propose)[:, ::-1]
        assert np.array_equal(rows, again), "the same trials must give the same mixtures, in any order"
        scores = np.sqrt(rows) @ np.array([3.0, -1.0, 0.5, 0.0]) + 0.01 * rng.standard_normal(size)
        start = len(completed)
        completed += [_told(start + i, domains, rows[i], float(scores[i])) for i in range(size)]
    seen = observed(completed)
    answer = answer_of(name, spec, seen, np.random.default_rng(7))
    assert answer.shape == (4,), "the answer must have one weight a domain"
    assert abs(answer.sum() - 1.0) < 1e-5, "the answer's weights must sum to 1"
    assert (answer >= 0).all(), "the answer's weights are not negative"
    assert (answer <= 0.5 + 1e-5).all(), "the answer must keep to the caps"
    assert np.array_equal(answer, answer_of(name, turned, seen[::-1], np.random.default_rng(7))[::-1]), (
        "the same trials must give the same answer, in any order"
    )


def check_writer(name: str) -> None:
    """Check a writer by its name: what it reads, and `datasets.load_dataset` where it does, is what was written."""
    import pyarrow as pa
    from datasets import load_dataset

    from openclimb.export.writers.writer import find_writer

    writer = find_writer(name)
    texts = [*ODD_TEXTS, "\u2028 \x85 \x00 \U0001f600"] * 300
    n = len(texts)
    content: dict[str, object] = {"text": texts}
    if writer.tokens:
        content = {"ids": pa.array([[*range(i % 7), 65535, 0] for i in range(n)], pa.list_(pa.uint16()))}
    tokens = [i % 7 + 2 for i in range(n)]
    places = {
        "repetition": [i % 3 for i in range(n)],
        "source_file": texts[::-1],
        "position": [i << 33 for i in range(n)],
    }
    rows = pa.table({**content, "id": texts, "domain": texts, "tokens": pa.array(tokens, pa.int32()), **places})
    rows = rows.replace_schema_metadata({"tokenizer": '{"vocab_size": 65536, "end": 0, "start": null}'})
    with tempfile.TemporaryDirectory() as folder:
        paths = writer.paths(Path(folder), "shard")
        writer.write(rows, *paths)
        first = [path.read_bytes() for path in paths]
        found = [row for table in writer.read(*paths) for row in table.to_pylist()]
        assert found == rows.to_pylist(), "what is read must be what was written"
        if writer.builder:
            loaded = load_dataset(writer.builder, data_files=str(paths[0]), split="train", streaming=True)
            assert list(loaded) == rows.to_pylist(), "what datasets reads must be what was written"
        writer.write(rows, *paths)
        assert [path.read_bytes() for path in paths] == first, "the same rows must give the same bytes"


def check_engine(make: Callable[[], Engine]) -> None:
    """Check an engine: all results with their indexes, errors handed on, few at once, and use after `release`."""
    engine = make()
    try:
        for most in (None, 1, 3):
            found = sorted(engine.map(abs, [-3, 2, -1, 0], Resources(at_once=most)))
            assert found == [(0, 3), (1, 2), (2, 1), (3, 0)], "every item's result, with the item's index"
        assert not list(engine.map(abs, [])), "no items give no results"
        try:
            list(engine.map(int, ["1", "one", "2"]))
        except ValueError:
            pass
        else:
            raise AssertionError("what the function raises must be raised")
        engine.release()
        assert sorted(engine.map(abs, [-1, 1])) == [(0, 1), (1, 1)], "an engine must work again after its release"
    finally:
        engine.release()


def check_objective(name: str = "command", command: str = "") -> None:
    """Check an objective by its name in the settings, or a trainer's command: finite scores of the same tasks for every
    mixture, and the same scores for the same trial.

    It is given three domains, one of them without weight in some mixtures, and few tokens. Runs it four times.
    """
    import shlex

    from openclimb.config.schema import ObjectiveSettings
    from openclimb.objectives.base import checked_scores
    from openclimb.objectives.run import load_score

    domains = [Domain("first", 800_000), Domain("second", 120_000), Domain("third", 60_000)]
    settings = ObjectiveSettings(kind=name, command=tuple(shlex.split(command)))
    with tempfile.TemporaryDirectory() as folder:
        score = load_score(settings, Path(folder), domains, 1_000_000, None)
        found = []
        for i, weights in enumerate(((0.8, 0.12, 0.08), (0.5, 0.5, 0.0), (1.0, 0.0, 0.0), (0.8, 0.12, 0.08))):
            trial = _told(i % 3, domains, np.array(weights), 0.0)
            found.append(checked_scores(score(trial, Path(folder) / f"{i:04d}"), "its result"))
    assert len({tuple(sorted(scores)) for scores in found}) == 1, "every trial must have scores of the same tasks"
    assert found[0] == found[3], "the same trial must have the same scores"


def _told(index: int, domains: list[Domain], weights: NDArray[np.float64], score: float) -> Trial:
    return Trial(
        number=index + 1,
        role="search",
        iteration=0,
        domains=tuple(domain.name for domain in domains),
        weights=tuple(weights.tolist()),
        seed=0,
        token_budget=1,
        data="",
        proposer="",
        identity=str(index),
        scores={"task": score},
    )
