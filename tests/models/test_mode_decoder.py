"""A mode's own decoder: nothing but the VAE's before training, and what its two additions do after."""

import pytest
import torch

from flipnet.models.mode_decoder import ModeDecoder
from tiny import tiny_pipeline


@pytest.fixture(scope="module")
def vae():
    return tiny_pipeline().vae


def seeds(*numbers):
    return [torch.Generator().manual_seed(number) for number in numbers]


def test_an_untrained_decoder_is_the_vaes_own(vae):
    latents, image = torch.randn(2, 4, 8, 8), torch.rand(2, 3, 64, 64) * 2 - 1
    decoder = ModeDecoder.from_vae(vae, fuses=True, noise=True)
    made = decoder(latents, vae.encoder.features(image), generators=seeds(0, 1))
    torch.testing.assert_close(made, vae.decode(latents).sample)


def test_the_weight_scales_what_is_fused_and_zero_leaves_it_out(vae):
    latents, features = torch.randn(1, 4, 8, 8), vae.encoder.features(torch.rand(1, 3, 64, 64))
    decoder = ModeDecoder.from_vae(vae, fuses=True)
    torch.nn.init.normal_(decoder.fusions[0].conv2.weight, std=0.1)
    own = vae.decode(latents).sample
    torch.testing.assert_close(decoder(latents, features, weight=0.0), own)
    torch.testing.assert_close(decoder(latents), own)
    change = [(decoder(latents, features, weight=w) - own).norm() for w in (0.5, 1.0)]
    assert 0 < change[0] < change[1]


def test_noise_follows_each_images_own_seed(vae):
    latents = torch.randn(1, 4, 8, 8).expand(3, -1, -1, -1)
    decoder = ModeDecoder.from_vae(vae, noise=True)
    torch.nn.init.ones_(decoder.noise_strengths[-1])
    made = decoder(latents, generators=seeds(5, 6, 5))
    torch.testing.assert_close(made[0], made[2])
    assert not torch.allclose(made[0], made[1])
    torch.testing.assert_close(decoder(latents[:1], generators=seeds(6))[0], made[1])


def test_it_survives_saving(vae, tmp_path):
    decoder = ModeDecoder.from_vae(vae, fuses=True, noise=True)
    decoder.save_pretrained(tmp_path)
    again = ModeDecoder.from_pretrained(tmp_path)
    assert again.config.fuses
    assert again.config.noise
    for name, value in decoder.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)


@torch.no_grad()
def test_a_code_is_learnt_on_top_and_turns_each_images_noise_up_or_down(vae):
    decoder = ModeDecoder.from_vae(vae, noise=True)
    torch.nn.init.constant_(decoder.noise_strengths[-1], 0.1)
    latents, code = torch.randn(1, 4, 8, 8).expand(3, -1, -1, -1), torch.tensor([[0.0], [1.0], [-1.0]])
    coded = decoder.with_code(1)
    without = decoder(latents, generators=seeds(5, 5, 5))
    assert torch.equal(coded(latents, generators=seeds(5, 5, 5), code=code), without)
    torch.nn.init.ones_(coded.code_gains[-1].weight)
    clean = vae.decode(latents).sample
    grain = (coded(latents, generators=seeds(5, 5, 5), code=code) - clean).square().mean((1, 2, 3)).sqrt()
    assert grain[0] == pytest.approx((without - clean)[0].square().mean().sqrt().item(), rel=1e-4)
    # e times the noise, through convolutions that are not quite linear.
    assert 2 < grain[1] / grain[0] < 3.5
    assert 2 < grain[0] / grain[2] < 3.5


def test_a_decoder_with_a_code_needs_it_and_has_no_second_one(vae, tmp_path):
    decoder = ModeDecoder.from_vae(vae, noise=True).with_code(2)
    with pytest.raises(ValueError, match="needs a code"):
        decoder(torch.randn(1, 4, 8, 8))
    with pytest.raises(ValueError, match="has a code of 2 numbers already"):
        decoder.with_code(3)
    decoder.save_pretrained(tmp_path)
    assert ModeDecoder.from_pretrained(tmp_path).config.code_dim == 2
