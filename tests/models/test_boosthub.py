import math

import pytest
import torch

from flipnet.models.boosthub import (
    BoostHub,
    ConditionFeatures,
    activate_hubs,
    add_hubs,
    hub_processors,
    install_hub_processors,
    rotate_2d,
)
from tiny import tiny_unet


@pytest.fixture
def hub():
    torch.manual_seed(0)
    hub = BoostHub(channels=16, heads=2, rotary=False)
    torch.nn.init.normal_(hub.hub_out.weight, std=0.3)
    return hub


def test_hub_is_the_papers_formula(hub):
    target, condition = torch.randn(2, 9, 16), torch.randn(2, 9, 16)
    got = hub(target, *hub.project_condition(condition))
    heads = []
    for h in range(2):
        rows = slice(8 * h, 8 * h + 8)
        q, k, v = (
            torch.einsum("bnc,dc->bnd", x, w.weight[rows])
            for x, w in ((target, hub.hub_q), (condition, hub.hub_k), (condition, hub.hub_v))
        )
        heads.append(torch.softmax(torch.einsum("bnd,bmd->bnm", q, k) / math.sqrt(8), dim=2) @ v)
    want = torch.einsum("bnc,dc->bnd", torch.cat(heads, 2), hub.hub_out.weight) + hub.hub_out.bias
    torch.testing.assert_close(got, want)


def test_fresh_hub_adds_nothing():
    hub = BoostHub(16, 2, rotary=True)
    x = torch.randn(1, 16, 16)
    assert hub(x, *hub.project_condition(x)).abs().max() == 0


def test_rotation_keeps_lengths_and_depends_on_offsets_only():
    content_q, content_k = torch.randn(8), torch.randn(8)
    grid = torch.zeros(1, 1, 25, 8)
    q, k = rotate_2d(grid + content_q), rotate_2d(grid + content_k)
    torch.testing.assert_close(q.norm(dim=-1), content_q.norm().expand(1, 1, 25))
    scores = (q @ k.mT)[0, 0].view(5, 5, 5, 5)
    torch.testing.assert_close(scores[1, 1, 2, 3], scores[2, 1, 3, 3])
    torch.testing.assert_close(scores[1, 1, 2, 3], scores[1, 2, 2, 4])
    assert (scores[1, 1, 2, 3] - scores[1, 1, 3, 2]).abs() > 1e-3


def test_rotation_refuses_a_grid_that_is_not_square():
    with pytest.raises(ValueError, match="square grid"):
        rotate_2d(torch.zeros(1, 1, 12, 8))


def test_rotary_hub_starts_by_looking_at_the_same_place():
    hub = BoostHub(64, 1, rotary=True)
    x = torch.randn(1, 256, 64)
    key, _ = hub.project_condition(x)
    query = rotate_2d(hub._split(hub.hub_q(x)))
    assert ((query @ key.mT)[0, 0].argmax(1) == torch.arange(256)).float().mean() > 0.95


@pytest.fixture
def unet():
    torch.manual_seed(0)
    unet = tiny_unet(concatenates=False).eval()
    add_hubs(unet, "restoration", rotary=False)
    activate_hubs(unet, "restoration")
    for processor in hub_processors(unet).values():
        torch.nn.init.normal_(processor.hubs["restoration"].hub_out.weight, std=0.3)
    return unet.requires_grad_(False)


def run(unet, latents, features=None):
    context = torch.zeros(len(latents), 16, 16)
    return unet(latents, 500, context, cross_attention_kwargs={"condition": features}).sample


def record(unet, latents):
    features = ConditionFeatures(recording=True)
    run(unet, latents, features)
    return features


def test_there_is_a_hub_beside_every_self_attention_layer(unet):
    self_attention = [name for name in unet.attn_processors if "attn1" in name]
    assert len(hub_processors(unet)) == len(self_attention) == 7
    assert record(unet, torch.randn(1, 4, 8, 8)).states.keys() == hub_processors(unet).keys()


def test_installing_processors_again_keeps_the_hubs(unet):
    before = hub_processors(unet)
    assert all(install_hub_processors(unet)[name] is before[name] for name in before)


def test_recording_is_plain_self_attention(unet):
    latents = torch.randn(1, 4, 8, 8)
    assert torch.equal(run(unet, latents, ConditionFeatures(recording=True)), run(unet, latents))


def test_phi_weighs_the_hub_linearly_in_a_layer(unet):
    layer, processor = next(iter(hub_processors(unet).items()))
    attention, x = unet.get_submodule(layer), torch.randn(1, 64, 16)
    features = ConditionFeatures(states={layer: torch.randn(1, 64, 16)})
    out = {phi: processor(attention, x, condition=features.with_phi(phi)) for phi in (0.0, 1.0, 2.0)}
    torch.testing.assert_close(out[2.0] - out[0.0], 2 * (out[1.0] - out[0.0]))
    torch.testing.assert_close(out[0.0], processor(attention, x))
    assert (out[1.0] - out[0.0]).abs().max() > 1e-3


def test_condition_matters_and_two_conditions_do_not_mix(unet):
    target, first, second = (torch.randn(1, 4, 8, 8) for _ in range(3))
    features = record(unet, first).with_phi(1.0)
    before = run(unet, target, features)
    other = run(unet, target, record(unet, second).with_phi(1.0))
    assert (before - other).abs().max() > 1e-3
    assert torch.equal(run(unet, target, features), before)


def test_keys_and_values_are_projected_once_per_image(unet):
    features = record(unet, torch.randn(1, 4, 8, 8)).with_phi(1.0)
    with torch.no_grad():
        run(unet, torch.randn(1, 4, 8, 8), features)
        first = dict(features.projected)
        run(unet, torch.randn(1, 4, 8, 8), features)
    assert features.projected.keys() == hub_processors(unet).keys()
    assert all(features.projected[name][0] is first[name][0] for name in first)


def test_unknown_hub_is_named(unet):
    with pytest.raises(ValueError, match="no hub named 'degradation'"):
        activate_hubs(unet, "degradation")
