"""Products in bf16: only in training, only where wanted and where the processor has tiles, and near those in fp32."""

import pytest
import torch

from openclimb.config.schema import ProxySettings
from openclimb.proxy.cpu import products
from openclimb.proxy.cpu.gradient import Gradient
from openclimb.proxy.cpu.products import bf16_products, has_tiles
from openclimb.proxy.model import StackedDecoder


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("tiles", [False, True])
def test_the_switch_is_put_back(wanted: bool, tiles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "has_tiles", lambda: tiles)
    before = torch.get_float32_matmul_precision()

    def fail_within() -> None:
        with bf16_products(wanted) as low:
            assert low == (wanted and tiles)
            assert torch.get_float32_matmul_precision() == ("medium" if low else before)
            raise KeyError

    with pytest.raises(KeyError):
        fail_within()
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.skipif(not has_tiles(), reason="this processor has no tiles for bf16")
def test_the_gradient_differs_by_the_rounding_of_bf16() -> None:
    proxy = ProxySettings(width=64, depth=2, heads=2, sequence=64, batch=4)
    model = StackedDecoder(proxy, 512, [0])
    step, tokens = Gradient(model, 4, 64), torch.randint(0, 512, (1, 4, 65), generator=torch.Generator().manual_seed(1))
    found = []
    for wanted in (False, True):
        with bf16_products(wanted) as low:
            assert low == wanted
            loss = step(tokens)
        found.append((loss.clone(), torch.cat([one.grad.flatten() for one in model.parameters()])))  # type: ignore[union-attr]
    (exact, slope), (loss, rounded) = found
    assert loss == pytest.approx(exact, rel=1e-3)
    assert not torch.equal(rounded, slope)
    assert (rounded - slope).norm() < 0.02 * slope.norm()
