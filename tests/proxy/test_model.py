"""The decoder: causal, stacked without touching its neighbours, and equal to transformers' Llama on its weights."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from openclimb.config.schema import ProxySettings
from openclimb.proxy.model import EPSILON, ROPE_BASE, STREAM_64, StackedDecoder
from openclimb.testing.models import drawn_decoder

PROXY = ProxySettings(width=32, depth=2, heads=2, sequence=16)
VOCAB = 64


def logits_of(model: StackedDecoder, tokens: torch.Tensor) -> torch.Tensor:
    return model.logits(model(tokens)).view(*tokens.shape, VOCAB)


def test_a_token_does_not_see_those_after_it() -> None:
    model = drawn_decoder(PROXY, VOCAB, [0])
    tokens = torch.randint(0, VOCAB, (1, 2, 10), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, :, 6:] = 1
    before, after = logits_of(model, tokens), logits_of(model, changed)
    assert torch.equal(before[:, :, :6], after[:, :, :6])
    assert not torch.allclose(before[:, :, 6:], after[:, :, 6:])


def test_a_model_of_a_stack_is_the_model_by_itself() -> None:
    stack = drawn_decoder(PROXY, VOCAB, [3, 4, 5])
    alone = drawn_decoder(PROXY, VOCAB, [4])
    tokens = torch.randint(0, VOCAB, (3, 2, 10), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(logits_of(stack, tokens)[1], logits_of(alone, tokens[1:2])[0], atol=1e-5, rtol=1e-5)


def test_seeds_give_other_weights_and_the_same_seed_the_same() -> None:
    first, again, other = (drawn_decoder(PROXY, VOCAB, [seed]) for seed in (1, 1, 2))
    assert torch.equal(first.embedding, again.embedding)
    assert not torch.allclose(first.embedding, other.embedding)


@pytest.mark.parametrize("width", [64, 256])
def test_a_fresh_stream_is_the_token_and_little_else(width: int) -> None:
    model = StackedDecoder(ProxySettings(width=width, depth=2, heads=2, sequence=16), 512, [0, 1])
    assert model.embedding.std().item() == pytest.approx(STREAM_64 * (64 / width) ** 0.5, rel=0.02)
    tokens = torch.randint(0, 512, (2, 2, 10), generator=torch.Generator().manual_seed(0))
    alone = torch.stack([nn.functional.rms_norm(model.embedding[i][tokens[i]], (width,)) for i in range(2)])
    cosine = nn.functional.cosine_similarity(model(tokens).view_as(alone), alone, dim=-1)
    assert 0.8 < cosine.mean() < 0.95  # and the rest is what blocks add, at the same scale


def test_logits_are_those_of_a_llama_with_the_same_weights() -> None:
    ours = drawn_decoder(PROXY, VOCAB, [0])
    hidden = ours.layers[0]["down"].shape[1]
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            intermediate_size=hidden,
            num_hidden_layers=2,
            num_attention_heads=2,
            rms_norm_eps=EPSILON,
            rope_theta=ROPE_BASE,
            tie_word_embeddings=True,
        )
    )
    state = {"model.embed_tokens.weight": ours.embedding[0], "lm_head.weight": ours.embedding[0]}
    state["model.norm.weight"] = ours.final_norm[0, 0]
    for i, layer in enumerate(ours.layers):
        parts = [*layer["qkv"][0].T.chunk(3), *layer["gate_up"][0].T.chunk(2)]
        names = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"]
        state |= {f"model.layers.{i}.{name}.weight": part for name, part in zip(names, parts, strict=True)}
        state[f"model.layers.{i}.self_attn.o_proj.weight"] = layer["attention_out"][0].T
        state[f"model.layers.{i}.mlp.down_proj.weight"] = layer["down"][0].T
        state[f"model.layers.{i}.input_layernorm.weight"] = layer["attention_norm"][0, 0]
        state[f"model.layers.{i}.post_attention_layernorm.weight"] = layer["mlp_norm"][0, 0]
    llama.load_state_dict(state)
    tokens = torch.randint(0, VOCAB, (1, 3, 16), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(logits_of(ours, tokens)[0], llama(tokens[0]).logits, atol=1e-4, rtol=1e-4)


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="heads"):
        drawn_decoder(ProxySettings(width=34, heads=4), VOCAB, [0])
