"""AdamW over a stack whose parameters lie in a few flat tensors, so that clipping and stepping are a few operations.

The hidden matrices learn at `learning_rate`, which falls as width^-1.5 from one shape to a wider one; embedding and
norms at width / 64 times that, as in μP (Yang et al. 2022), so that their own rate falls as width^-½, as does the scale
that the embedding begins with. What was measured is in docs/decisions/.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from openclimb.config.schema import ProxySettings
from openclimb.proxy.model import StackedDecoder

BETAS = (0.9, 0.99)  # .99 gives lower losses than .95 (bench/results/recipe_confirm.json)
EPSILON = 1e-8
WEIGHT_DECAY = 0.1  # decoupled, of the matrices
WARMUP = 0.05  # share of the steps in which the rate rises
DECAY = 0.5  # share of the steps, at the end, in which the rate falls to zero
CLIP = 1.0  # largest norm of a model's gradient
ALIGNED = 16  # a parameter begins at a multiple of so many numbers: 64 bytes, a line of the cache
BASE_WIDTH = 64  # at this width all parameters learn at one rate


class Optimiser:
    """The optimiser of a stack. It moves the parameters and their gradients into flat tensors (M, n) of its own."""

    def __init__(self, model: StackedDecoder, proxy: ProxySettings) -> None:
        embedding_rate = 1.0 if proxy.checkpoint else proxy.width / BASE_WIDTH
        kinds: dict[str, list[nn.Parameter]] = {"matrices": [], "norms": []}
        for name, parameter in model.named_parameters():
            if name in ("embedding", "output"):
                kinds[name] = [parameter]
            else:
                kinds["norms" if "norm" in name else "matrices"].append(parameter)
        self.flat = {kind: _flatten(parameters) for kind, parameters in kinds.items()}
        self.factors = {kind: 1.0 if kind == "matrices" else embedding_rate for kind in kinds}
        self.decays = {kind: 0.0 if kind == "norms" else WEIGHT_DECAY for kind in kinds}
        self.gradients = [_gradient(flat) for flat in self.flat.values()]
        self.means = {kind: torch.zeros_like(flat) for kind, flat in self.flat.items()}
        self.squares = {kind: torch.zeros_like(flat) for kind, flat in self.flat.items()}
        self.done = torch.zeros((), device=self.gradients[0].device)  # steps

    def restart(self) -> None:
        """Forget all earlier steps."""
        for tensor in (self.done, *self.means.values(), *self.squares.values()):
            tensor.zero_()

    def zero(self) -> None:
        """Set all gradients to zero, in place."""
        for gradient in self.gradients:
            gradient.zero_()

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Clip each model's gradient by itself and update; `rate` is that of the hidden matrices."""
        clip(self.gradients)
        self.done += 1
        for (kind, flat), gradient in zip(self.flat.items(), self.gradients, strict=True):
            # What torch.optim.AdamW(fused=True) calls: its own bookkeeping took as long as the update of a demo proxy.
            torch._fused_adamw_(
                [flat],
                [gradient],
                [self.means[kind]],
                [self.squares[kind]],
                [],
                [self.done],
                lr=rate * self.factors[kind],
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=self.decays[kind],
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )

    def state(self, model: int) -> dict[str, Tensor]:
        """Return what one model has learnt and what its next step needs, on the CPU: copies."""
        return {
            f"{kind}.{name}": held[kind][model].detach().cpu().clone()
            for kind in self.flat
            for name, held in (("weights", self.flat), ("mean", self.means), ("square", self.squares))
        }

    @torch.no_grad()
    def load(self, states: Sequence[dict[str, Tensor]], step: int) -> None:
        """Go back to where `state` was taken of each model, after `step` steps."""
        self.done.fill_(float(step))
        for kind in self.flat:
            for i, state in enumerate(states):
                for name, held in (("weights", self.flat), ("mean", self.means), ("square", self.squares)):
                    held[kind][i].copy_(state[f"{kind}.{name}"])


def clip(gradients: Sequence[Tensor]) -> None:
    """Scale each model's gradient, in parts of (M, …), down to a norm of at most `CLIP`."""
    norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
    scale = (CLIP / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp_(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))


def schedule(step: int, n_steps: int, warmup: float = WARMUP, decay: float = DECAY) -> float:
    """Return the share of the peak rate at a step: a linear rise, a plateau, a linear fall that ends at zero."""
    rise = max(1.0, warmup * n_steps)
    fall = max(1.0, decay * n_steps)
    return min(1.0, (step + 1) / rise, (n_steps - step) / fall)


def _flatten(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return a flat tensor (M, n) that the parameters and, in its gradient, their gradients are views of."""
    m = parameters[0].shape[0]
    if len(parameters) == 1:  # without a gap, so that the rows of M embeddings lie one behind the other
        starts, n = [0], parameters[0][0].numel()
    else:
        sizes = [-(-parameter[0].numel() // ALIGNED) * ALIGNED for parameter in parameters]
        starts, n = [sum(sizes[:i]) for i in range(len(sizes))], sum(sizes)
    flat, gradient = (torch.zeros(m, n, device=parameters[0].device) for _ in range(2))
    for parameter, start in zip(parameters, starts, strict=True):
        stop = start + parameter[0].numel()
        flat[:, start:stop] = parameter.detach().flatten(1)
        parameter.data = flat[:, start:stop].view(parameter.shape)
        parameter.grad = gradient[:, start:stop].view(parameter.shape)
    flat.requires_grad_()
    flat.grad = gradient
    return flat


def _gradient(flat: Tensor) -> Tensor:
    assert flat.grad is not None
    return flat.grad
