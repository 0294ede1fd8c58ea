"""The forward pass of a CPU gives the states that the model's own does."""

import numpy as np
import pytest
import torch

from openclimb.config.schema import ProxySettings
from openclimb.proxy.cpu import forward
from openclimb.proxy.cpu.forward import ForwardPass
from openclimb.proxy.evaluate import visible
from openclimb.proxy.model import Form, Rope
from openclimb.testing.models import drawn_decoder

PROXY = ProxySettings(width=48, depth=2, heads=4, sequence=64)
GROUPED = Form(groups=2, head=16, tied=False, rope=Rope(5e5, "llama3", 8.0))


@pytest.mark.parametrize("form", [Form(), GROUPED], ids=["ours", "grouped"])
@pytest.mark.parametrize("seeds", [[0], [3, 4, 5]], ids=["one", "three"])
@pytest.mark.parametrize("share", [0.1, 0.9], ids=["few wanted", "most wanted"])
@pytest.mark.parametrize("branched", [False, True])
def test_states_are_those_of_the_model(
    form: Form, seeds: list[int], share: float, branched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "ROWS", 16)  # several blocks of rows
    n, length, rng = 5, 37, np.random.default_rng(0)
    model = drawn_decoder(PROXY, 90, seeds, form)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm"):
                parameter.mul_(torch.rand_like(parameter) + 0.5)
    tokens = torch.from_numpy(rng.integers(0, 90, (n, length)))
    places = np.flatnonzero(rng.random(n * length) < share)
    places = places[(places < 2 * length) | (places >= 3 * length)]  # nothing is wanted of one row
    branches = torch.arange(length).sub(20).clamp(min=0).div(6, rounding_mode="floor").expand(n, -1)
    branches = branches * branched
    positions = torch.where(branches > 1, torch.arange(length) - 6 * (branches - 1), torch.arange(length))
    seen = visible(branches)
    everything = tokens.expand(len(seeds), -1, -1)
    with torch.inference_mode():
        expected = model(everything, positions, seen, torch.from_numpy(places))
        found = ForwardPass(model)(tokens, positions, torch.where(seen, 0.0, float("-inf")), places)
    assert found.shape == (len(seeds), len(places), 48)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
