import pytest
import torch

from flipnet.models.lora_rank import narrow_lora, widen_lora
from tiny import tiny_pipeline


@pytest.fixture
def network():
    network = tiny_pipeline().network.eval()
    network.activate("restoration")
    return network


def predicted(network):
    latents = torch.randn(1, network.latent_channels, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network(latents, 500, network.condition(latents, None))


def test_widened_lora_does_what_it_did(network):
    before = predicted(network)
    assert before.abs().sum() > 0
    widen_lora(network, "restoration", 12, convolutions=True)
    assert torch.equal(predicted(network), before)
    assert network.unet.peft_config["restoration"].r == 12
    with pytest.raises(ValueError, match="rank 12 and is not widened to 4"):
        widen_lora(network, "restoration", 4, convolutions=True)


def test_narrowing_what_was_widened_gives_the_old_lora_back(network):
    before, rank = predicted(network), network.unet.peft_config["restoration"].r
    widen_lora(network, "restoration", rank + 5, convolutions=False)
    assert narrow_lora(network, "restoration", rank) == pytest.approx(1, abs=1e-6)
    assert network.unet.peft_config["restoration"].r == rank
    torch.testing.assert_close(predicted(network), before, rtol=1e-4, atol=1e-5)


def test_narrowing_keeps_the_largest_directions_of_every_layer(network):
    widen_lora(network, "restoration", 12, convolutions=True)
    layers = {
        name: module
        for name, module in network.unet.named_modules()
        if "restoration" in getattr(module, "lora_A", {})
    }
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for module in layers.values():
            for matrix in (module.lora_A["restoration"], module.lora_B["restoration"]):
                matrix.weight.copy_(torch.randn(matrix.weight.shape, generator=generator))
    assert any(module.lora_A["restoration"].weight.ndim == 4 for module in layers.values())

    def updates():
        found = {}
        for name in layers:
            module = network.unet.get_submodule(name)
            found[name] = module.get_delta_weight("restoration").detach().flatten(1)
        return found

    before = updates()
    kept = narrow_lora(network, "restoration", 3)
    left = 0.0
    for name, after in updates().items():
        values = torch.linalg.svdvals(before[name])
        # Eckart-Young: what the best approximation of rank 3 misses are the other singular values.
        assert torch.linalg.norm(before[name] - after) == pytest.approx(float(values[3:].norm()), rel=1e-3)
        left += float(values[:3].square().sum())
    assert kept == pytest.approx(left / sum(float(u.square().sum()) for u in before.values()), rel=1e-3)
    assert narrow_lora(network, "restoration", 3) == 1


def test_layers_narrower_than_the_rank_keep_all_of_their_update(network):
    layer = next(m for m in network.unet.modules() if "restoration" in getattr(m, "lora_A", {}))
    narrowest = min(layer.in_features, layer.out_features)
    widen_lora(network, "restoration", narrowest + 8, convolutions=False)
    before = predicted(network)
    assert narrow_lora(network, "restoration", narrowest + 4) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(predicted(network), before, rtol=1e-4, atol=1e-5)
