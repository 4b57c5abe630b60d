"""A tiny base of Stable Diffusion's kind: the same classes and layout, on disk as a folder or as a single file."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor


def sd_unet(**changes: object) -> UNet2DConditionModel:
    """Two levels, 64 and 128 channels, linear projections as in version 2."""
    torch.manual_seed(0)
    settings = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (64, 128),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 24,
        "attention_head_dim": (1, 2),
        "use_linear_projection": True,
    }
    return UNet2DConditionModel(**(settings | changes)).eval()


def sd_vae() -> AutoencoderKL:
    """Eight image pixels per latent pixel, as in Stable Diffusion, 32 channels everywhere."""
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=1,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.18215,
    ).eval()


def save_base(folder: Path, *, prediction_type: str = "epsilon", **unet: object) -> Path:
    """Write a base as the hub has them: version 2.1-base comes with PNDM, 2.1 (velocity) with DDIM.

    There is a text encoder in the folder that nothing could load.
    """
    sd_unet(**unet).save_pretrained(folder / "unet")
    sd_vae().save_pretrained(folder / "vae")
    kind = PNDMScheduler if prediction_type == "epsilon" else DDIMScheduler
    kind(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type
    ).save_pretrained(folder / "scheduler")
    (folder / "text_encoder").mkdir()
    (folder / "text_encoder" / "config.json").write_text("no JSON")
    (folder / "text_encoder" / "model.safetensors").write_text("no weights")
    return folder


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def original_unet_name(name: str, layers: int, attends: tuple[bool, ...]) -> str:
    """Name of a UNet weight in CompVis' latent-diffusion, whose blocks are numbered through."""
    for ours, theirs in UNET_ENDS.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    found = re.match(
        r"(down|up|mid)_blocks?\.(?:(\d+)\.)?(resnets|attentions|\w+samplers)\.(\d+)\.(.*)", name
    )
    side, level, kind, index, rest = found.groups()
    level, index = int(level or 0), int(index)
    if kind == "resnets":
        part, tail = rest.split(".")
        rest = f"{RESNET[part]}.{tail}"
    if side == "mid":
        return f"middle_block.{2 * index if kind == 'resnets' else 1}.{rest}"
    if side == "down":
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * (layers + 1)}.0.{rest.replace('conv', 'op')}"
        return f"input_blocks.{level * (layers + 1) + index + 1}.{int(kind == 'attentions')}.{rest}"
    if kind == "upsamplers":
        place = 2 if attends[len(attends) - 1 - level] else 1
        return f"output_blocks.{level * (layers + 1) + layers}.{place}.{rest}"
    return f"output_blocks.{level * (layers + 1) + index}.{int(kind == 'attentions')}.{rest}"


def original_vae_name(name: str, levels: int) -> str:
    """Name of a VAE weight in CompVis' latent-diffusion, whose decoder counts its levels from the finest."""
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", name)
    for level in range(levels):
        name = name.replace(f"up_blocks.{level}.resnets.", f"up.{levels - 1 - level}.block.")
        name = name.replace(f"up_blocks.{level}.upsamplers.0.", f"up.{levels - 1 - level}.upsample.")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    for ours, theirs in {
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "to_out.0": "proj_out",
    }.items():
        name = name.replace(f"mid_block.attentions.0.{ours}.", f"mid.attn_1.{theirs}.")
    return name


def original_state(unet: UNet2DConditionModel, vae: AutoencoderKL) -> dict[str, Tensor]:
    """Both models' weights under the names of the original single files."""
    config = unet.config
    attends = tuple("CrossAttn" in kind for kind in config.down_block_types)
    state = {
        f"model.diffusion_model.{original_unet_name(name, config.layers_per_block, attends)}": value
        for name, value in unet.state_dict().items()
    }
    for name, value in vae.state_dict().items():
        original = original_vae_name(name, len(vae.config.block_out_channels))
        if ".attn_1." in original and original.endswith("weight") and value.ndim == 2:
            value = value[:, :, None, None]  # attention by 1x1 convolutions
        state[f"first_stage_model.{original}"] = value
    return state


def save_single_file(file: Path) -> Path:
    """Write the tiny base as one file, a text encoder's weight and the schedule's buffers in it."""
    state = original_state(sd_unet(), sd_vae())
    state["cond_stage_model.model.ln_final.weight"] = torch.ones(3)
    state["alphas_cumprod"] = torch.ones(3)
    save_file({name: value.contiguous() for name, value in state.items()}, file)
    return file
