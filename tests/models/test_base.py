import json

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file

from flipnet.checkpoints import CheckpointError
from flipnet.models.backbone import encode_latents
from flipnet.models.base import SD21_UNET, SD_VAE, load_base, load_base_vae, sd21_base
from flipnet.models.single_file import unet_config, vae_config
from sd_like import original_state, save_base, save_single_file, sd_unet, sd_vae


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_folder_keeps_its_schedule_prediction_type_and_scaling(tmp_path, prediction_type):
    base = load_base(str(save_base(tmp_path / "base", prediction_type=prediction_type)))
    assert isinstance(base.scheduler, DDIMScheduler)
    assert base.scheduler.config.prediction_type == prediction_type
    # Stable Diffusion's published schedule: scaled-linear betas, ᾱ = 0.0047 at the last of 1,000 steps.
    assert float(base.scheduler.alphas_cumprod[-1]) == pytest.approx(0.00466, abs=1e-5)
    assert not base.scheduler.config.clip_sample
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        raw = sd_vae().encode(image).latent_dist.mode()
        torch.testing.assert_close(encode_latents(base.vae, image), raw * 0.18215)


def test_a_single_file_gives_the_same_models_as_the_folder(tmp_path):
    file = save_single_file(tmp_path / "base.safetensors")
    folder = load_base(str(save_base(tmp_path / "base", prediction_type="v_prediction")))
    single = load_base(str(file), "v_prediction")
    assert single.scheduler.config.prediction_type == "v_prediction"
    torch.testing.assert_close(single.scheduler.alphas_cumprod, folder.scheduler.alphas_cumprod)
    image, latents, context = torch.randn(1, 3, 64, 64), torch.randn(1, 4, 8, 8), torch.randn(1, 7, 24)
    with torch.no_grad():
        torch.testing.assert_close(encode_latents(single.vae, image), encode_latents(folder.vae, image))
        ours, theirs = (base.unet(latents, 300, context).sample for base in (single, folder))
    torch.testing.assert_close(ours, theirs)
    assert load_base_vae(str(file)).config.scaling_factor == 0.18215
    assert load_base_vae(str(tmp_path / "base")).config.scaling_factor == 0.18215
    assert load_base_vae(str(tmp_path / "base/vae")).config.scaling_factor == 0.18215


def test_shapes_of_stable_diffusion_21_are_read_off_its_weights():
    with torch.device("meta"):
        base = sd21_base()
    state = original_state(base.unet, base.vae)
    # Names and shapes that v2-1_512-ema-pruned.safetensors has.
    prefix = "model.diffusion_model."
    assert state[f"{prefix}input_blocks.0.0.weight"].shape == (320, 4, 3, 3)
    assert state[f"{prefix}middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape == (1280, 1024)
    assert state[f"{prefix}output_blocks.11.1.proj_in.weight"].shape == (320, 320)
    assert state["first_stage_model.decoder.up.0.block.0.nin_shortcut.weight"].shape == (128, 256, 1, 1)
    unet = {key: value for key, value in state.items() if key.startswith(prefix)}
    vae = {key: value for key, value in state.items() if not key.startswith(prefix)}
    found = unet_config(unet)
    assert {key: found[key] for key in SD21_UNET} == SD21_UNET
    assert found["down_block_types"] == base.unet.config.down_block_types
    found = vae_config(vae)
    assert found == {key: SD_VAE[key] for key in found}


def broken(folder, part, **changes):
    path = folder / part
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    ("unet", "reason"),
    [
        ({"in_channels": 9}, "its UNet takes 9 channels, expected 4"),
        ({"out_channels": 3}, "its UNet makes 3 channels, its VAE's latents have 4"),
        ({"cross_attention_dim": (24, 48)}, "its cross-attention width is .*Adapter tau needs one number"),
        ({"num_class_embeds": 5}, r"its UNet wants inputs that FLIPNET has not \(num_class_embeds\)"),
    ],
)
def test_a_base_that_does_not_fit_is_refused_in_one_sentence(tmp_path, unet, reason):
    if "cross_attention_dim" in unet:
        unet = unet | {
            "down_block_types": ("CrossAttnDownBlock2D",) * 2,
            "up_block_types": ("CrossAttnUpBlock2D",) * 2,
        }
    folder = save_base(tmp_path / "base", **unet)
    with pytest.raises(CheckpointError, match=f"base: cannot be a base: {reason}") as caught:
        load_base(str(folder))
    assert "\n" not in str(caught.value)


def test_missing_and_foreign_parts_are_named(tmp_path):
    folder = save_base(tmp_path / "base")
    broken(folder, "scheduler/scheduler_config.json", prediction_type="flow_prediction")
    with pytest.raises(CheckpointError, match="it predicts 'flow_prediction', known are epsilon"):
        load_base(str(folder))
    (folder / "unet/diffusion_pytorch_model.safetensors").rename(folder / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"unet/diffusion_pytorch_model\.safetensors: no whole"):
        load_base(str(folder))
    (folder / "unet/config.json").unlink()
    with pytest.raises(CheckpointError, match=r"it has no unet/config\.json"):
        load_base(str(folder))
    for name in ("model.ckpt", "model.bin", "model.PT"):
        with pytest.raises(CheckpointError, match="pickled weights are not read, convert them"):
            load_base(str(tmp_path / name))
    with pytest.raises(CheckpointError, match="no such folder or file, and not a hub id"):
        load_base(str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match="no such file"):
        load_base(str(tmp_path / "nowhere.safetensors"), "epsilon")


def test_single_files_that_cannot_be_used_are_named(tmp_path):
    file = save_single_file(tmp_path / "base.safetensors")
    with pytest.raises(CheckpointError, match="does not say what it predicts, set prediction_type"):
        load_base(str(file))
    state = load_file(file)
    save_file(
        {k: v for k, v in state.items() if not k.startswith("model.")}, tmp_path / "no-unet.safetensors"
    )
    with pytest.raises(CheckpointError, match="it has no unet in Stable Diffusion's layout"):
        load_base(str(tmp_path / "no-unet.safetensors"), "epsilon")
    state.pop("model.diffusion_model.out.0.weight")
    save_file(state, tmp_path / "incomplete.safetensors")
    with pytest.raises(CheckpointError, match="its unet is not Stable Diffusion's"):
        load_base(str(tmp_path / "incomplete.safetensors"), "epsilon")
    with pytest.raises(CheckpointError, match="says itself what it predicts, leave prediction_type out"):
        load_base(str(save_base(tmp_path / "base")), "epsilon")


def test_version_1_has_eight_heads_and_convolutions_as_projections():
    unet = sd_unet(use_linear_projection=False, attention_head_dim=8)
    state = {k: v for k, v in original_state(unet, sd_vae()).items() if k.startswith("model.")}
    found = unet_config(state)
    assert found["attention_head_dim"] == (8, 8)
    assert not found["use_linear_projection"]


def test_a_vae_with_the_names_of_diffusers_first_years_is_read(tmp_path):
    # As the VAE of Stable Diffusion 2.1 is stored on the hub.
    folder = save_base(tmp_path / "base") / "vae"
    file = folder / "diffusion_pytorch_model.safetensors"
    renamed = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(file)
    for new, old in renamed.items():
        state = {key.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): v for key, v in state.items()}
    assert "decoder.mid_block.attentions.0.query.weight" in state
    save_file(state, file, {"format": "pt"})
    vae, image = load_base_vae(str(folder)), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            vae.encode(image).latent_dist.mode(), sd_vae().encode(image).latent_dist.mode()
        )
