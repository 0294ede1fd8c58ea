"""Whether gradients of one natural proxy foretell which mixtures train well: a cheap score beside n-gram scores.

    python bench/align.py --run WORKSPACE [--seeds 3] [--name align]

WORKSPACE has completed trials of many mixtures (what bench/real.py leaves, say); only the cheap scores are made here. A
proxy is trained on the natural mixture, for a share of its tokens. Then, for each domain d and each task t, the
gradient of its mean loss; a mixture's score on a task is

    Σ_d w_d · ⟨g_t, P g_d⟩

the first-order gain on the task of one step on the mixture, with P = 1 / (√v + ε) of Adam or P = 1 (influence: Pruthi
et al. 2020, "Estimating training data influence by tracing gradient descent", NeurIPS 33; FastMix, 2025, moves weights
along such alignments). It is linear in the weights. The table gives the rank correlation with the full trials, and how
well predictions from a few full trials rank the others without a low-fidelity score, with this one and with bigrams.
Writes bench/results/NAME.json.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from _cheap_tables import ranks, replaced
from _results import write_results
from openclimb.config.schema import Config
from openclimb.corpus.domains import read_domains
from openclimb.mixture import natural
from openclimb.proxy.data import Reader, batches, open_tokens
from openclimb.proxy.model import StackedDecoder
from openclimb.proxy.optimizer import EPSILON, schedule
from openclimb.proxy.stack.program import Program, program_for
from openclimb.search.predictors.low_fidelity import LowFidelity
from openclimb.search.predictors.ngram import count_ngrams
from openclimb.tasks.items import gold_pairs
from openclimb.workspace.records import Workspace
from openclimb.workspace.trials import Trial, read_trials

Floats = NDArray[np.float64]

SHARES = (0.25, 0.5, 1.0)  # of the natural proxy's tokens, after which gradients are taken
SEQUENCES = 64  # of a domain, that its gradient is taken on
N_FULL, N_SPLITS = (4, 8, 16, 32), 8  # full trials that a prediction learns from
DRAWN = 256  # mixtures whose cheap scores a low-fidelity score is made of
CHOSEN = "with Adam's scale, after 1 of the tokens"  # the low-fidelity score; said before any was measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3, help="natural proxies whose alignments are averaged")
    parser.add_argument("--name", default="align", help="of the results file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = Workspace(options.run).config()
    completed = [one for one in read_trials(options.run / "trials") if one.scores and one.role == "search"]
    tasks, weights, full = by_mixture(completed)
    names = completed[0].domains
    rng = np.random.default_rng(0)
    drawn = weights[rng.permutation(len(weights))[:DRAWN]]
    rows: list[dict[str, Any]] = []
    low_fidelity = {}
    began = time.process_time()
    found = [alignments(options.run, config, names, tasks, seed) for seed in range(options.seeds)]
    seconds = (time.process_time() - began) / options.seeds
    rows.append({"case": "alignment", "metric": "seconds of one core, the proxy included", "value": round(seconds, 1)})
    for key in found[0]:
        table = np.mean([one[key] for one in found], axis=0)  # (n_tasks, n_domains)
        rows += ranks(weights @ table.T, full, tasks, key)
        if key == CHOSEN:
            low_fidelity["alignment"] = LowFidelity(drawn, drawn @ table.T)
    counted = count_ngrams(options.run / "tokens", config.proxy.token_budget, 2)
    columns = [names.index(name) for name in counted.domains]
    order = [counted.tasks.index(task) for task in tasks]
    rows += ranks(counted.scores(weights[:, columns])[:, order], full, tasks, "bigram")
    low_fidelity["bigram"] = LowFidelity(drawn, counted.scores(drawn[:, columns])[:, order])
    show(rows)
    found_hints = replaced(weights, full, full, tasks, low_fidelity, N_FULL, N_SPLITS)
    show(found_hints)
    write_results(options.name, rows + found_hints)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rank correlations of the objective."""
    for row in rows:
        if "rank" in row["metric"] and ("objective" in row["metric"] or "from" in row["metric"]):
            print(f"{row['case']:<40} {row['metric']:<62} {row['value']:>8.3f}", flush=True)


def by_mixture(completed: Sequence[Trial]) -> tuple[tuple[str, ...], Floats, Floats]:
    """Return the tasks, the mixtures (n, n_domains) and their scores (n, n_tasks), means over seeds."""
    tasks = tuple(sorted(completed[0].scores))
    found: dict[tuple[float, ...], list[list[float]]] = {}
    for trial in completed:
        found.setdefault(trial.weights, []).append([trial.scores[task] for task in tasks])
    return tasks, np.array(list(found)), np.array([np.mean(rows, axis=0) for rows in found.values()])


def alignments(root: Path, config: Config, names: Sequence[str], tasks: Sequence[str], seed: int) -> dict[str, Floats]:
    """Return the alignment (n_tasks, n_domains) by what it was taken with and when."""
    proxy, tokens = config.proxy, open_tokens(root / "tokens")
    by_name = {domain.name: share for domain, share in zip(*_shares(root), strict=True)}
    share = tuple(by_name[name] for name in names)
    trial = Trial(0, "search", 0, tuple(names), share, seed, proxy.token_budget, "", "", "")
    model = StackedDecoder(proxy, tokens.vocab_size, [seed])
    program = program_for(model, proxy, "cpu")
    reader = Reader(tokens, trial, proxy.sequence)
    n_steps = -(-len(reader) // proxy.batch)
    stops = {round(part * n_steps): part for part in SHARES}
    found: dict[str, Floats] = {}
    for i, batch in enumerate(batches([reader], proxy.batch, 0, n_steps)):
        program.gradient(batch)
        program.optimiser.step(proxy.learning_rate * schedule(i, n_steps))
        if i + 1 in stops:
            for how, table in taken(root, program, proxy.sequence, names, tasks).items():
                found[f"{how}, after {stops[i + 1]:g} of the tokens"] = table
    return found


def _shares(root: Path) -> tuple[Sequence[Any], Sequence[float]]:
    domains = read_domains(root / "domains")
    return domains, natural(domains).tolist()


def taken(root: Path, program: Program, sequence: int, names: Sequence[str], tasks: Sequence[str]) -> dict[str, Floats]:
    """Return ⟨g_t, P g_d⟩ (n_tasks, n_domains) with Adam's P and with P = 1, at the model as it is."""
    tokens, model = open_tokens(root / "tokens"), program.model
    of_domains = torch.stack([_domain(model, tokens.arrays[name], sequence) for name in names])
    of_tasks = torch.stack([_task(model, root / "tokens" / "tasks" / f"{task}.npz") for task in tasks])
    squares = [program.optimiser.squares[kind][0] for kind in program.optimiser.flat]
    scale = 1.0 / (torch.cat(_by_parameter(program, squares)).sqrt() + EPSILON)
    return {
        "with Adam's scale": (of_tasks @ (of_domains * scale).T).double().numpy(),
        "plain gradients": (of_tasks @ of_domains.T).double().numpy(),
        "cosines": _cosines(of_tasks * scale.sqrt(), of_domains * scale.sqrt()),
    }


def _cosines(a: torch.Tensor, b: torch.Tensor) -> Floats:
    found: Floats = (
        (torch.nn.functional.normalize(a, dim=1) @ torch.nn.functional.normalize(b, dim=1).T).double().numpy()
    )
    return found


def _by_parameter(program: Program, flats: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return flat tensors cut into parameters, in the model's order."""
    kinds = dict(zip(program.optimiser.flat, flats, strict=True))
    starts = {flat.data_ptr(): kind for kind, flat in program.optimiser.flat.items()}
    parts = []
    for parameter in program.model.parameters():
        first = max(start for start in starts if start <= parameter.data_ptr())
        offset = (parameter.data_ptr() - first) // parameter.element_size()
        parts.append(kinds[starts[first]][offset : offset + parameter[0].numel()])
    return parts


def _domain(model: StackedDecoder, array: NDArray[Any], sequence: int) -> torch.Tensor:
    """Return the gradient of the mean loss over sequences spread evenly over a domain."""
    n = min(SEQUENCES, (len(array) - 1) // sequence)
    starts = np.linspace(0, len(array) - 1 - sequence, n).astype(np.int64)
    rows = torch.from_numpy(np.stack([array[start : start + sequence + 1] for start in starts]).astype(np.int64))
    return _gradient(model, rows, torch.ones(n, sequence))


def _task(model: StackedDecoder, path: Path) -> torch.Tensor:
    """Return the gradient of a task's loss: all bits of the right options over their bytes (search items)."""
    with np.load(path, allow_pickle=False) as stored:
        wanted = ("tokens", "lengths", "contexts", "bytes", "chars", "item", "gold")
        packed = gold_pairs({name: stored[f"search/{name}"] for name in wanted})
    longest = min(model.longest, int(packed["lengths"].max()))
    rows = torch.zeros(len(packed["lengths"]), longest, dtype=torch.int64)
    scored = torch.zeros(len(rows), longest - 1)
    ends = np.cumsum(packed["lengths"])
    for i, (end, length, context) in enumerate(zip(ends, packed["lengths"], packed["contexts"], strict=True)):
        kept = packed["tokens"][end - length : end][-longest:].astype(np.int64)
        rows[i, : len(kept)] = torch.from_numpy(kept)
        scored[i, max(0, int(context) - 1 - max(0, int(length) - longest)) : len(kept) - 1] = 1.0
    return _gradient(model, rows, scored)


def _gradient(model: StackedDecoder, rows: torch.Tensor, scored: torch.Tensor, at_once: int = 32) -> torch.Tensor:
    """Return the flat gradient of the mean loss over scored tokens (n, length); rows (n, length + 1)."""
    parameters = list(model.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for i in range(0, len(rows), at_once):
        part, weight = rows[i : i + at_once], scored[i : i + at_once]
        logits = model.logits(model(part[None, :, :-1]))[0]
        losses = torch.nn.functional.cross_entropy(logits, part[:, 1:].reshape(-1), reduction="none")
        found = torch.autograd.grad((losses * weight.flatten()).sum() / scored.sum(), parameters)
        torch._foreach_add_(total, list(found))
    return torch.cat([one[0].flatten() for one in total])


if __name__ == "__main__":
    main()
