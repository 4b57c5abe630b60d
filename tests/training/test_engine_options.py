"""What a recipe may switch on: min-SNR weights, gradient checkpointing, torch.compile."""

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import nn

from flipnet.config import RestorationConfig, RunConfig
from flipnet.training.loop import set_speed_and_memory
from flipnet.training.modes import ModeObjective, train_only
from flipnet.training.objective import min_snr_weights
from flipnet.types import Mode
from tiny import tiny_pipeline

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def test_min_snr_weights_are_the_papers():
    timesteps = torch.tensor([0, 300, 999])
    schedulers = {
        kind: DDIMScheduler(**SCHEDULE, prediction_type=kind)
        for kind in ("epsilon", "v_prediction", "sample")
    }
    weights = {kind: min_snr_weights(each, timesteps, 5.0) for kind, each in schedulers.items()}
    alpha_bar = schedulers["epsilon"].alphas_cumprod[timesteps]
    snr = alpha_bar / (1 - alpha_bar)
    torch.testing.assert_close(weights["sample"], snr.clamp(max=5))
    # An error of the clean latents is one of the noise times 1/SNR, and one of the velocity times 1/(SNR + 1).
    torch.testing.assert_close(weights["epsilon"] * snr, weights["sample"])
    torch.testing.assert_close(weights["v_prediction"] * (snr + 1), weights["sample"])


def test_min_snr_weights_are_finite_without_any_signal():
    schedulers = [
        DDIMScheduler(**SCHEDULE, prediction_type=kind, rescale_betas_zero_snr=True)
        for kind in ("epsilon", "v_prediction")
    ]
    last = torch.tensor([999])
    assert [float(min_snr_weights(each, last, 5.0)) for each in schedulers] == [
        1.0,
        pytest.approx(0, abs=1e-6),
    ]


def objective(**config: object) -> ModeObjective:
    pipeline = tiny_pipeline()
    settings = RestorationConfig(base="", **config)
    train_only(pipeline, Mode.RESTORATION)
    return ModeObjective(pipeline, Mode.RESTORATION, settings).train()


def batch():
    generator = torch.Generator().manual_seed(0)
    shapes = {"hq_latents": (2, 4, 8, 8), "lq_latents": (2, 4, 8, 8), "embedding": (2, 16, 12)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def loss_and_gradients(trained: ModeObjective) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    total = trained(batch())["total"]
    total.backward()
    return total.detach(), {n: p.grad for n, p in trained.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("condition_gradient", [False, True])
def test_gradient_checkpointing_changes_no_gradient(condition_gradient):
    plain, saving = (objective(condition_gradient=condition_gradient) for _ in range(2))
    set_speed_and_memory(saving, RunConfig(gradient_checkpointing=True))
    assert saving.network.unet.is_gradient_checkpointing
    (loss, gradients), (same, others) = loss_and_gradients(plain), loss_and_gradients(saving)
    torch.testing.assert_close(same, loss)
    assert gradients.keys() == others.keys()
    for name in gradients:
        torch.testing.assert_close(others[name], gradients[name], msg=name)


def test_compiled_networks_train_alike(monkeypatch):
    # The compiler's own code generator is torch's business: what is tested is that its tracer takes the hubs.
    compiled = nn.Module.compile
    monkeypatch.setattr(UNet2DConditionModel, "compile", lambda self: compiled(self, backend="eager"))
    plain, fast = objective(), objective()
    set_speed_and_memory(fast, RunConfig(compile=True))
    (loss, gradients), (same, others) = loss_and_gradients(plain), loss_and_gradients(fast)
    torch.testing.assert_close(same, loss)
    for name in gradients:
        torch.testing.assert_close(others[name], gradients[name], msg=name)
    assert fast.state_dict().keys() == plain.state_dict().keys()


def test_min_snr_is_applied():
    plain, weighed = objective(), objective(min_snr_gamma=5.0)
    assert float(loss_and_gradients(plain)[0]) != float(loss_and_gradients(weighed)[0])
