"""What annotations may cost, and what they cost so far.

A request is sent only if the most it can cost still fits: every byte of its prompt as a token (a token of a byte-level
tokenizer has at least one), and the longest answer. So the limits hold whatever the server's tokenizer is.
"""

from dataclasses import dataclass

BYTES_A_TOKEN = 3  # where the server does not say: English has 4 to 5, code and other scripts fewer
TEMPLATE_TOKENS = 64  # that a server's chat template may add to a prompt


@dataclass(frozen=True)
class Tokens:
    """Tokens of prompts and of answers."""

    prompt: int = 0
    answer: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.prompt + other.prompt, self.answer + other.answer)

    def __sub__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.prompt - other.prompt, self.answer - other.answer)

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt + self.answer


@dataclass(frozen=True)
class Limits:
    """Limits and prices; None: no limit, or no price known."""

    tokens: int | None = None
    usd: float | None = None
    usd_in: float | None = None  # dollars for a million tokens of prompts
    usd_out: float | None = None  # and of answers

    def cost(self, tokens: Tokens) -> float | None:
        """Return what tokens cost in dollars, None where no price is known."""
        if self.usd_in is None or self.usd_out is None:
            return None
        return (tokens.prompt * self.usd_in + tokens.answer * self.usd_out) / 1e6

    def allow(self, tokens: Tokens) -> bool:
        """Return whether so many tokens are within both limits."""
        cost = self.cost(tokens)
        return (self.tokens is None or tokens.total <= self.tokens) and (
            self.usd is None or cost is None or cost <= self.usd
        )


class Budget:
    """What was spent, and what requests in flight may still cost."""

    def __init__(self, limits: Limits, spent: Tokens) -> None:
        self.limits, self.spent, self.reserved = limits, spent, Tokens()

    def fits(self, most: Tokens) -> bool:
        """Return whether a request that costs at most so much may be sent."""
        return self.limits.allow(self.spent + self.reserved + most)


def about(n_bytes: int) -> int:
    """Return about how many tokens a text of so many bytes has."""
    return -(-n_bytes // BYTES_A_TOKEN)
