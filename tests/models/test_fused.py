import pytest
import torch
from safetensors.torch import load_file

from flipnet.models.flipnet import base_state_dict, save_base_unet
from flipnet.pipelines.degrade import FaceDegrader
from flipnet.pipelines.restore import FaceRestorer
from two_modes import two_mode_pipeline


def predict(network):
    generator = torch.Generator().manual_seed(0)
    noisy, latents, embedding = (
        torch.randn(2, *shape, generator=generator) for shape in ((4, 8, 8), (4, 8, 8), (16, 12))
    )
    embeds = network.adapters[network.mode].embeds
    with torch.no_grad():
        return network(noisy, 500, network.condition(latents, embedding if embeds else None))


def test_fused_predictions_equal_unfused_ones(pipeline):
    network = pipeline.network
    for name, weight in network.unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    before = predict(network)
    network.fuse()
    fused = predict(network)
    assert (fused - before).abs().max() < 1e-4
    assert not torch.equal(fused, before)  # the LoRA's own products are gone
    network.unfuse()
    assert torch.equal(predict(network), before)


def test_switching_modes_leaves_no_trace_of_a_fused_lora():
    network = two_mode_pipeline().network
    base = {key: value.clone() for key, value in base_state_dict(network.unet).items()}
    network.activate("restoration")
    want = predict(network)
    for _ in range(3):
        for mode in ("restoration", "degradation"):
            network.activate(mode)
            network.fuse()
            network.fuse()
    network.activate("restoration")
    assert torch.equal(predict(network), want)
    assert all(torch.equal(base[key], value) for key, value in base_state_dict(network.unet).items())


def test_mappings_that_share_a_pipeline_do_not_disturb_each_other():
    pipeline = two_mode_pipeline()
    face = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    alone = FaceRestorer(two_mode_pipeline(), phi=1.0, steps=2, model_name="tiny")(face, [0])
    restorer = FaceRestorer(pipeline, phi=1.0, steps=2, model_name="tiny")
    degrader = FaceDegrader(pipeline, phi=1.0, steps=2, model_name="tiny")
    first = restorer(face, [0])
    degraded = degrader(face, [0])
    assert torch.equal(first, alone)
    assert torch.equal(restorer(face, [0]), alone)
    assert torch.equal(degrader(face, [0]), degraded)
    assert (degraded - alone).abs().max() > 1e-3


def test_a_fused_lora_is_never_saved_as_part_of_the_base(tmp_path, pipeline):
    base = {key: value.clone() for key, value in base_state_dict(pipeline.unet).items()}
    pipeline.network.fuse()
    with pytest.raises(ValueError, match="a LoRA is fused into this UNet"):
        save_base_unet(pipeline.unet, tmp_path)
    pipeline.save_pretrained(tmp_path / "saved")
    saved = load_file(tmp_path / "saved/unet/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(base[key], value) for key, value in saved.items())
