import math

import pytest
import torch
from diffusers import DDIMScheduler

from flipnet.training.objective import (
    association_loss,
    diffusion_target,
    estimated_clean,
    gradient_energy,
    gradient_l1,
    grid_distance,
    hinge_losses,
    perceptual_distance,
    psnr,
    sample_timesteps,
    to_unit_range,
)


def test_psnr_of_a_known_error():
    reference = torch.zeros(1, 3, 8, 8)
    assert float(psnr(reference + 0.02, reference)) == pytest.approx(20 * math.log10(2 / 0.02), abs=1e-3)


def test_levels_to_unit_range():
    assert to_unit_range(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


def test_gradient_losses_of_a_ramp():
    ramp = torch.arange(8.0).expand(1, 3, 8, 8)
    flat = torch.zeros(1, 3, 8, 8)
    assert float(gradient_l1(ramp, flat)) == 1.0
    assert float(gradient_l1(ramp + 5, ramp)) == 0.0
    assert float(gradient_energy(2 * ramp)) == 4.0


def test_association_loss_of_alike_and_unrelated_patches():
    tokens = torch.eye(4).expand(2, 4, 4)
    # Similarity is the identity: each row's cross-entropy is -log(e / (e + 3)) at temperature 1.
    want = 2 * -math.log(math.e / (math.e + 3))
    assert float(association_loss(tokens, tokens, 1.0)) == pytest.approx(want, rel=1e-5)
    same = torch.ones(2, 4, 4)
    assert float(association_loss(same, same, 1.0)) == pytest.approx(2 * math.log(4), rel=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_clean_latents_come_back_from_the_true_target(prediction):
    scheduler = DDIMScheduler(prediction_type=prediction)
    clean, noise, timesteps = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([5, 400, 900])
    noisy = scheduler.add_noise(clean, noise, timesteps)
    target = diffusion_target(scheduler, clean, noise, timesteps)
    estimate = estimated_clean(scheduler, target, noisy, timesteps)
    torch.testing.assert_close(estimate, clean, atol=1e-3, rtol=1e-3)


def test_perceptual_distance_ignores_scale_and_sees_shape():
    features = lambda x: [x, x[..., ::2, ::2]]  # noqa: E731
    a, b = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    assert float(perceptual_distance(features, a, 3 * a)) == pytest.approx(0, abs=1e-10)
    assert float(perceptual_distance(features, a, -a)) == pytest.approx(4, rel=1e-4)
    assert 0.5 < float(perceptual_distance(features, a, b)) < 3.5


def test_timesteps_follow_their_distribution():
    generator = torch.Generator().manual_seed(0)
    uniform = sample_timesteps(20_000, 1000, 0.0, 0.0, generator=generator).float()
    assert uniform.min() == 0
    assert uniform.max() == 999
    assert float(uniform.mean()) == pytest.approx(499.5, abs=8)
    high = sample_timesteps(20_000, 1000, 1.0, 0.5, generator=generator).float()
    assert float(high.median()) == pytest.approx(1000 / (1 + math.exp(-1)), abs=8)
    last = sample_timesteps(20_000, 1000, 0.0, 1.0, 0.25, generator) == 999
    assert float(last.float().mean()) == pytest.approx(0.25, abs=0.02)


def test_hinge_losses_train_one_side_at_a_time():
    judge = torch.nn.Conv2d(3, 1, 1)
    made, real = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 4, 4)
    adversarial, judged = hinge_losses(judge, made, real)
    (gradient,) = torch.autograd.grad(adversarial, made, retain_graph=True)
    torch.testing.assert_close(gradient, -judge.weight.detach().expand_as(gradient) / 32)
    adversarial.backward()
    assert judge.weight.grad is None
    judged.backward()
    assert judge.weight.grad.abs().sum() > 0


def test_grid_distance_sees_blocks_and_neither_noise_nor_slopes():
    generator = torch.Generator().manual_seed(0)
    smooth = torch.linspace(-1, 1, 64).expand(2, 3, 64, 64) + 0.05 * torch.randn(
        2, 3, 64, 64, generator=generator
    )
    noisier = smooth + 0.05 * torch.randn(2, 3, 64, 64, generator=generator)
    blocks = smooth + 0.3 * torch.randn(2, 3, 4, 4, generator=generator).repeat_interleave(
        16, 2
    ).repeat_interleave(16, 3)
    assert grid_distance(smooth, smooth, 16) == 0
    assert grid_distance(blocks, smooth, 16) > 5 * grid_distance(noisier, smooth, 16)
