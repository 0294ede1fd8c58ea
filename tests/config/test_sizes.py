"""The dial of sizes: each has about the parameters that it says, and shapes that a decoder takes."""

import pytest

from openclimb.config.load import parse_count
from openclimb.config.scales import preset
from openclimb.config.sizes import SHAPES, n_parameters, rate_at, shape_of, vocabulary_of
from openclimb.errors import ConfigError


@pytest.mark.parametrize("size", SHAPES)
def test_a_size_has_the_parameters_that_it_says(size: str) -> None:
    shape = shape_of(size)
    n = n_parameters(shape["width"], shape["depth"], vocabulary_of(size))
    assert n == pytest.approx(parse_count(size), rel=0.12)
    assert shape["width"] % (2 * shape["heads"]) == 0


def test_larger_sizes_are_wider_and_learn_slower() -> None:
    shapes = [shape_of(size) for size in SHAPES]
    widths, rates = ([shape[name] for shape in shapes] for name in ("width", "learning_rate"))
    assert widths == sorted(widths)
    assert rates == sorted(rates, reverse=True)
    assert rates[0] * widths[0] ** 1.5 == pytest.approx(rates[-1] * widths[-1] ** 1.5, rel=0.01)


def test_the_count_is_that_of_a_model() -> None:
    from openclimb.config.schema import ProxySettings
    from openclimb.proxy.model import StackedDecoder

    proxy = ProxySettings(**shape_of("0.5M"))
    model = StackedDecoder(proxy, 2048, [0])
    assert sum(p.numel() for p in model.parameters()) == n_parameters(proxy.width, proxy.depth, 2048)


@pytest.mark.parametrize("scale", ["laptop", "node", "paper"])
def test_the_scales_agree_with_the_dial(scale: str) -> None:
    proxy = preset(scale).proxy
    assert proxy.learning_rate == pytest.approx(rate_at(proxy.width), rel=0.25)  # `laptop` was measured by itself


def test_an_unknown_size_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"did you mean '350M'"):
        shape_of("350MB")
