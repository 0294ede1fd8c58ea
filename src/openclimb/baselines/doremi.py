"""DoReMi (Xie et al. 2023, arXiv 2305.10429): domain weights by group DRO, without any task. One of the baselines.

A reference model is trained on the natural mixture. A second model of the same shape then reads all domains equally
often, each in every batch; its loss weighs the domains by α, which grows where the model is still worse than the
reference (its excess loss, clipped at 0 for each token) and is smoothed toward uniform. The answer is the mean of α
over the steps. Both models have the least multiple of the number of domains as their batch that is not below the
proxy's. On a CPU the same seed gives the same bits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from openclimb.baselines.baseline import Baseline
from openclimb.config.schema import ProxySettings
from openclimb.errors import SearchError
from openclimb.proxy.cpu.products import bf16_products
from openclimb.proxy.data import Reader, Tokens, open_tokens
from openclimb.proxy.hf_io import make_decoder
from openclimb.proxy.optimizer import Optimiser, schedule
from openclimb.proxy.stack.program import HEAD_FLOATS, POSITIONS
from openclimb.workspace.trials import Trial

STEP_SIZE = 1.0  # η of the exponentiated gradient (the paper's)
SMOOTHING = 1e-3  # c: share of the uniform mixture in α (the paper's)


@dataclass(frozen=True)
class DoReMi:
    """What a run of DoReMi comes to."""

    weights: tuple[float, ...]  # mean of α over the steps, in the order of the domains
    last: tuple[float, ...]  # α after the last step
    excess: tuple[float, ...]  # each domain's excess loss at the end, nats a token
    tokens: int  # that both models read


def doremi(
    folder: Path,
    domains: Sequence[str],
    reference: Sequence[float],
    proxy: ProxySettings,
    token_budget: int,
    seed: int,
    device: str = "cpu",
    bf16: bool = True,
) -> DoReMi:
    """Return DoReMi's weights for the domains of the packed tokens in `folder`.

    `reference`: the mixture of the reference model. `token_budget`: tokens of each of the two runs; of it, as many are
    read as give all domains the same number of sequences, at least one each. Raises SearchError when a loss is not a
    number. `bf16`: products in bf16 also on a CPU that has tiles for them.
    """
    if device == "cpu":
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)  # products of denormals are many times slower
    try:
        tokens = open_tokens(folder)
        budget = whole_batches(replace(proxy, token_budget=token_budget), len(domains))
        first = _Run(tokens, domains, reference, budget, seed, device)
        with bf16_products(device == "cpu" and bf16):
            for _, batch, _ in first:
                first.learn(batch, torch.full((len(batch),), 1.0 / len(batch), device=device))
            uniform = [1.0 / len(domains)] * len(domains)
            return _reweigh(_Run(tokens, domains, uniform, budget, seed, device), first)
    finally:
        torch.set_flush_denormal(False)


def whole_batches(proxy: ProxySettings, n_domains: int) -> ProxySettings:
    """Return the settings with a batch and a budget of so many sequences that each domain can have an equal number."""
    sequences = max(1, proxy.token_budget // proxy.sequence // n_domains) * n_domains
    batch = -(-proxy.batch // n_domains) * n_domains
    return replace(proxy, batch=batch, token_budget=sequences * proxy.sequence)


class _Run:
    """One model on its way through a mixture: (step, tokens (batch, sequence + 1), domain of each sequence)."""

    def __init__(
        self,
        tokens: Tokens,
        domains: Sequence[str],
        mixture: Sequence[float],
        proxy: ProxySettings,
        seed: int,
        device: str,
    ) -> None:
        self.proxy, self.device = proxy, device
        trial = Trial(0, "doremi", 0, tuple(domains), tuple(mixture), seed, proxy.token_budget, "", "doremi", "")
        self.reader = Reader(tokens, trial, proxy.sequence)
        self.n_steps = -(-len(self.reader) // proxy.batch)
        self.model = make_decoder(proxy, tokens.vocab_size, [seed]).to(device)
        self.optimiser = Optimiser(self.model, proxy)
        most = min(POSITIONS, HEAD_FLOATS // tokens.vocab_size)  # logits of a pass are kept for its gradient
        self.rows = max(1, most // proxy.sequence)  # of a pass: a larger batch takes several

    def __iter__(self) -> Iterator[tuple[int, Tensor, NDArray[np.int64]]]:
        for step in range(self.n_steps):
            self.rate = self.proxy.learning_rate * schedule(step, self.n_steps)
            start = step * self.proxy.batch
            stop = min(start + self.proxy.batch, len(self.reader))
            yield step, torch.from_numpy(self.reader.read(start, stop)).to(self.device), self.reader.domains[start:stop]

    @torch.no_grad()
    def losses(self, batch: Tensor) -> Tensor:
        """Return the loss of every token in nats, (batch, sequence), without gradients."""
        return torch.cat([self._losses(part) for part in torch.split(batch, self.rows)])

    def learn(self, batch: Tensor, shares: Tensor) -> None:
        """Take one step down the gradient of the sequences' mean losses, weighed by their shares (batch,).

        Raises SearchError when the loss is not a number.
        """
        self.optimiser.zero()
        total = torch.zeros((), device=self.device)
        for part, share in zip(torch.split(batch, self.rows), torch.split(shares, self.rows), strict=True):
            loss = (self._losses(part).mean(1) * share).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if not bool(torch.isfinite(total)):
            raise SearchError(f"the loss of DoReMi is {total.item()}", "lower proxy.learning_rate")
        self.optimiser.step(self.rate)

    def _losses(self, part: Tensor) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            logits = self.model.logits(self.model(part[None, :, :-1]))[0]
        each = nn.functional.cross_entropy(logits.float(), part[:, 1:].reshape(-1), reduction="none")
        return each.view(len(part), -1)


def _reweigh(run: _Run, reference: _Run) -> DoReMi:
    """Train by group DRO (the paper's algorithm 1)."""
    k = len(run.reader.arrays)
    alpha, excess, total = np.full(k, 1.0 / k), np.zeros(k), np.zeros(k)
    for _, batch, domains in run:
        # The weights need the losses of the whole batch, and the gradient the weights: the batch is read twice.
        above = (run.losses(batch) - reference.losses(batch)).clamp(min=0.0).mean(1).cpu().numpy()
        counts = np.bincount(domains, minlength=k)  # equal: the reader spreads equal shares evenly
        excess = np.bincount(domains, above, k) / counts
        alpha = reweighed(alpha, excess)
        total += alpha
        # Every sequence has the same length, so a domain's mean over tokens is that over its sequences.
        run.learn(batch, torch.from_numpy((alpha[domains] / counts[domains]).astype(np.float32)).to(run.device))
    mean = total / total.sum()
    read = (len(run.reader) + len(reference.reader)) * run.proxy.sequence
    return DoReMi(tuple(mean.tolist()), tuple(alpha.tolist()), tuple(excess.tolist()), read)


def reweighed(alpha: NDArray[np.float64], excess: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return α (k,) after a step of the exponentiated gradient for excess losses (k,), smoothed toward uniform."""
    grown = alpha * np.exp(STEP_SIZE * (excess - excess.max()))  # a common factor makes no difference
    return (1.0 - SMOOTHING) * grown / grown.sum() + SMOOTHING / len(alpha)


BASELINE = Baseline(own_run=doremi)
