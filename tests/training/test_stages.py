"""Every stage end to end at tiny size, each on what the one before it wrote."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from flipnet.config import RecipeError
from flipnet.data.shards import PairRecord, ShardWriter
from flipnet.models.backbone import load_component, load_vae
from flipnet.models.face_encoder import FaceEncoder
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.training import run_recipe

VAE = "channels = [8, 8, 8]\nblocks = 1\nlatent_channels = 4\ncrop_px = 48\ndegraded_fraction = 0.5"
PRIOR = """vae = "{vae}"
[prior.unet]
sample_size = 8
in_channels = 8
out_channels = 4
block_out_channels = [16, 32]
layers_per_block = 1
down_block_types = ["DownBlock2D", "CrossAttnDownBlock2D"]
up_block_types = ["CrossAttnUpBlock2D", "UpBlock2D"]
cross_attention_dim = 16
attention_head_dim = 2
norm_num_groups = 8
[prior.scheduler]
prediction_type = "v_prediction"
clip_sample = false
timestep_spacing = "trailing"
"""
EMBEDDING = """vae = "{vae}"
channels = [8, 8, 8]
blocks = 1
unshuffle = 2
embedding_dim = 12
input_px = 32
"""
RESTORATION = """base = "{prior}"
face_encoder = "{association}"
lora_rank = 4
train_base = {train_base}
rotary = true
image_crop_latents = 4
lq_variants = {variants}
"""


@pytest.fixture
def stages(tmp_path, write_recipe):
    """Run the stages before restoration once and return their final folders."""
    vae, prior, first, second = (tmp_path / name for name in ("vae", "prior", "first", "second"))
    numbers = run_recipe(write_recipe("autoencoder", VAE), output=vae)
    assert 5 < numbers["reconstruction_psnr_db"] < 60
    run_recipe(write_recipe("prior", PRIOR.format(vae=vae / "final")), output=prior)
    run_recipe(write_recipe("embedding", EMBEDDING.format(vae=vae / "final")), output=first)
    numbers = run_recipe(write_recipe("association", f'face_encoder = "{first / "final"}"'), output=second)
    assert 0 <= numbers["patches_matched"] <= 1
    return {"vae": vae / "final", "prior": prior / "final", "association": second / "final"}


@pytest.mark.parametrize("variants", [0, 2])
def test_all_stages_make_a_checkpoint_that_restores(tmp_path, stages, write_recipe, variants):
    table = RESTORATION.format(**stages, train_base="false", variants=variants)
    numbers = run_recipe(write_recipe("restoration", table), output=tmp_path / "run")
    assert {"psnr_input", "psnr_1", "psnr_4", "sharp_4"} <= numbers.keys()
    pipeline = FlipnetPipeline.from_pretrained(tmp_path / "run/final")
    out = pipeline(
        torch.zeros(1, 3, 64, 64), generator=torch.Generator().manual_seed(0), output_type="pt"
    ).images
    assert out.shape == (1, 3, 64, 64)
    assert torch.isfinite(out).all()

    # The recipe kept the base frozen but for the input convolution, whose condition channels learn.
    before = load_file(stages["prior"] / "unet/diffusion_pytorch_model.safetensors")
    after = load_file(tmp_path / "run/final/unet/diffusion_pytorch_model.safetensors")
    assert before.keys() == after.keys()
    assert [key for key in before if not torch.equal(before[key], after[key])] == [
        "conv_in.bias",
        "conv_in.weight",
    ]
    mode = load_file(tmp_path / "run/final/modes/restoration.safetensors")
    hub_outputs = [value for key, value in mode.items() if key.endswith("hub_out.weight")]
    assert hub_outputs
    assert all(value.abs().max() > 0 for value in hub_outputs)

    # The run says what it did.
    assert json.loads((tmp_path / "run/recipe.json").read_text())["restoration"]["lora_rank"] == 4
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert {"total", "ldm", "mse", "perceptual", "images_per_second"} <= lines[0].keys()


def test_restoration_can_train_the_base_and_go_on_from_an_earlier_run(tmp_path, stages, write_recipe):
    table = RESTORATION.format(**stages, train_base="true", variants=0)
    run_recipe(write_recipe("restoration", table), output=tmp_path / "first")
    recipe = write_recipe("restoration", f'{table}start_from = "{tmp_path}/first/final"')
    run_recipe(recipe, output=tmp_path / "second")
    before, middle, after = (
        load_file(folder / "unet/diffusion_pytorch_model.safetensors")["conv_out.weight"]
        for folder in (stages["prior"], tmp_path / "first/final", tmp_path / "second/final")
    )
    assert not torch.equal(before, middle)
    assert not torch.equal(middle, after)


def test_association_pulls_patches_together(tmp_path, stages, write_recipe):
    recipe = write_recipe("association", f'face_encoder = "{stages["association"]}"', steps=30)
    run_recipe(recipe, ("optim.learning_rate=5e-3",), tmp_path / "long")
    losses = [json.loads(line) for line in (tmp_path / "long/log.jsonl").read_text().splitlines()]
    losses = [line["association"] for line in losses if "association" in line]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert isinstance(load_component(tmp_path / "long/final", {"FaceEncoder": FaceEncoder}), FaceEncoder)


def test_decoder_can_be_finished_without_moving_the_latents(tmp_path, stages, write_recipe):
    table = f'{VAE}\nstart_from = "{stages["vae"]}"\nfreeze_encoder = true'
    run_recipe(write_recipe("autoencoder", table), output=tmp_path / "finished")
    before, after, image = (
        load_vae(stages["vae"]),
        load_vae(tmp_path / "finished/final"),
        torch.randn(1, 3, 64, 64),
    )
    assert torch.equal(before.encode(image).latents, after.encode(image).latents)
    assert before.config.latents_std == after.config.latents_std
    assert (before(image) - after(image)).abs().max() > 1e-4


DEGRADATION = """base = "{base}"
crop_px = 64
lora_rank = 4
lora_convolutions = true
rotary = true
[[degradation.pairs]]
layout = "shards"
path = "{shard}"
key_weights = {{ synthetic = 2.0 }}
[[degradation.val_pairs]]
layout = "shards"
path = "{shard}"
"""


def test_degradation_mode_joins_a_checkpoint_and_changes_nothing_else(
    tmp_path, write_recipe, tiny_checkpoint, pair_shard
):
    table = DEGRADATION.format(base=tiny_checkpoint, shard=pair_shard)
    numbers = run_recipe(write_recipe("degradation", table), output=tmp_path / "run")
    assert numbers["val_ldm"] > 0
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert {"total", "ldm"} <= lines[0].keys()
    assert not {"mse", "perceptual"} & lines[0].keys()  # L_ldm only

    before, after = tiny_checkpoint, tmp_path / "run/final"
    for part in ("unet", "vae", "face_encoder"):
        name = f"{part}/diffusion_pytorch_model.safetensors"
        old, new = load_file(before / name), load_file(after / name)
        assert all(torch.equal(old[key], new[key]) for key in old)
    mode = "modes/restoration.safetensors"
    old, new = load_file(before / mode), load_file(after / mode)
    assert all(torch.equal(old[key], new[key]) for key in old)
    learnt = load_file(after / "modes/degradation.safetensors")
    assert all(value.abs().max() > 0 for key, value in learnt.items() if "lora_B" in key or "hub_out" in key)

    pipeline = FlipnetPipeline.from_pretrained(after)
    face = torch.rand(1, 3, 64, 64) * 2 - 1
    out = {
        name: pipeline(face, mode=name, generator=torch.Generator().manual_seed(0), output_type="pt").images
        for name in ("restoration", "degradation")
    }
    assert (out["restoration"] - out["degradation"]).abs().max() > 1e-3


def test_offline_pairs_are_mixed_in_and_their_loss_is_told_apart(tmp_path, stages, write_recipe, face_folder):
    pixels = np.zeros((64, 64, 3), np.uint8)
    with ShardWriter(tmp_path / "offline") as writer:
        for number in range(3):
            record = PairRecord(method="flipnet", seed=number)
            writer.write(f"face-{number}", pixels, pixels, record)
    table = RESTORATION.format(**stages, train_base="false", variants=0)
    table += f'offline = ["{tmp_path}/offline"]\noffline_share = 0.5'
    run_recipe(write_recipe("restoration", table, steps=6), output=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    seen = set().union(*(line.keys() for line in lines))
    assert {"ldm_online", "ldm_offline"} <= seen
    mixed = [line for line in lines if {"ldm_online", "ldm_offline"} <= line.keys()]
    assert all(line["ldm"] == pytest.approx((line["ldm_online"] + line["ldm_offline"]) / 2) for line in mixed)


def test_offline_pairs_with_cached_variants_are_a_contradiction(tmp_path, stages, write_recipe):
    table = RESTORATION.format(**stages, train_base="false", variants=2) + 'offline = ["x"]'
    with pytest.raises(RecipeError, match="offline pairs need lq_variants = 0"):
        run_recipe(write_recipe("restoration", table), output=tmp_path / "run")
