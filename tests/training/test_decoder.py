"""Stage "decoder" at tiny size, and its judges."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage.data import astronaut

from flipnet.config import DecoderConfig, TogetherConfig
from flipnet.faces.align import template
from flipnet.models.flipnet import mode_state_dict
from flipnet.models.mode_decoder import ModeDecoder
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.training import run_recipe
from flipnet.training.adversary import PerceptualNetwork, feature_distance, places
from flipnet.training.decoder import DecoderObjective, FaceCrops, Variant
from flipnet.training.recognition import MobileFace
from flipnet.types import FlipnetError
from tiny import tiny_pipeline
from two_modes import two_mode_pipeline

TABLE = """base = "{base}"
crop_px = 48
perceptual_weight = 0.1
adversarial_weight = 0.01
"""


def test_restorations_decoder_learns_and_is_saved(tmp_path, write_recipe):
    base = tmp_path / "base"
    tiny_pipeline().save_pretrained(base)
    numbers = run_recipe(write_recipe("decoder", TABLE.format(base=base), steps=3), output=tmp_path / "run")
    assert {"psnr_1", "sharp_1", "psnr_input"} <= numbers.keys()
    decoder = FlipnetPipeline.from_pretrained(tmp_path / "run/final").decoders["restoration"]
    assert decoder.config.fuses
    # The fusions start at zero: they moved, so the LQ face reached the loss.
    assert all(fusion.conv2.weight.abs().sum() > 0 for fusion in decoder.fusions)


def test_a_base_that_has_a_decoder_goes_on_from_it(tmp_path, write_recipe):
    pipeline = tiny_pipeline()
    pipeline.decoders["restoration"] = ModeDecoder.from_vae(pipeline.vae, fuses=True)
    torch.nn.init.constant_(pipeline.decoders["restoration"].fusions[0].conv2.weight, 0.25)
    pipeline.save_pretrained(tmp_path / "base")
    recipe = write_recipe("decoder", TABLE.format(base=tmp_path / "base"), steps=1)
    run_recipe(recipe, output=tmp_path / "run")
    decoder = FlipnetPipeline.from_pretrained(tmp_path / "run/final").decoders["restoration"]
    assert decoder.fusions[0].conv2.weight.mean().item() == pytest.approx(0.25, abs=0.01)


def test_mode_and_decoder_learn_together_and_identity_is_looked_at(tmp_path, write_recipe):
    base, network = tmp_path / "base", tmp_path / "faces.safetensors"
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(base)
    save_file(MobileFace().state_dict(), network)
    table = TABLE.format(base=base) + (
        f'identity_weight = 1.0\nidentity_network = "{network}"\nface_share = 1.0\n'
        "[decoder.together]\nlora_rank = 8\nlora_convolutions = true\nldm_weight = 0.5\n"
    )
    run_recipe(write_recipe("decoder", table, steps=3), output=tmp_path / "run")
    line = json.loads((tmp_path / "run/log.jsonl").read_text().splitlines()[0])
    assert 0 < line["identity"] < 2
    assert line["ldm"] > 0
    trained = FlipnetPipeline.from_pretrained(tmp_path / "run/final")
    lora = mode_state_dict(trained.network, "restoration")
    assert any("conv1" in name for name in lora)
    # The second matrices of the new convolution LoRA start at zero: image losses reached the mode.
    assert all(lora[name].abs().sum() > 0 for name in lora if "conv1.lora_B" in name)
    before = pipeline.unet.state_dict()["mid_block.resnets.0.conv1.weight"]
    assert torch.equal(before, trained.unet.state_dict()["mid_block.resnets.0.conv1.base_layer.weight"])


@pytest.mark.parametrize(("seen", "finite"), [(1, True), (0, False)])
def test_the_diffusion_loss_looks_at_as_many_faces_of_a_batch_as_it_is_told(seen, finite):
    pipeline = tiny_pipeline()
    config = DecoderConfig(base="", together=TogetherConfig(ldm_faces=seen))
    decoder = ModeDecoder.from_vae(pipeline.vae, fuses=True)
    pipeline.network.activate("restoration")
    faces = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents, _ = pipeline.encode(faces)
    levels = ((faces + 1) * 127.5).to(torch.uint8)
    batch = {
        "target": levels,
        "condition": levels,
        "corner_px": torch.zeros(2, 2, dtype=torch.int64),
        "lq_latents": latents.float(),
        "hq_latents": torch.stack([latents[0].float(), torch.full_like(latents[1].float(), torch.nan)]),
        "embedding": pipeline.network.embed(faces),
    }
    losses = DecoderObjective(pipeline, decoder, config)(batch)
    assert bool(losses["ldm"].isfinite()) == finite
    assert losses["l1"].isfinite()


def test_crops_of_parts_lie_around_eyes_nose_and_mouth_and_all_of_them_are_seen():
    side, factor, size = 8, 8, 256
    faces = np.zeros((1, size, size, 3), np.uint8)
    crops = FaceCrops(faces, [Variant(faces)], side, factor, parts_share=1.0)
    middles = np.array([crops[0, seed]["corner_px"].numpy()[::-1] for seed in range(200)]) + side * factor / 2
    # A quarter of the side away at most, and half a latent pixel of rounding.
    offsets = np.abs(middles[:, None] - template(size)).max(2)
    assert offsets.min(1).max() <= side * factor / 4 + factor / 2
    assert set(offsets.argmin(1)) == {0, 1, 2, 3, 4}
    anywhere = FaceCrops(faces, [Variant(faces)], side, factor)
    corners = np.array([anywhere[0, seed]["corner_px"].numpy() for seed in range(200)])
    assert corners.min() == 0
    assert corners.max() == size - side * factor


def test_recognition_weights_that_do_not_fit_are_named(tmp_path, write_recipe):
    tiny_pipeline().save_pretrained(tmp_path / "base")
    bad = tmp_path / "bad.safetensors"
    save_file({"x": torch.zeros(1)}, bad)
    table = TABLE.format(base=tmp_path / "base") + f'identity_weight = 1.0\nidentity_network = "{bad}"\n'
    with pytest.raises(FlipnetError, match=r"bad\.safetensors: not the recognition network's weights"):
        run_recipe(write_recipe("decoder", table, steps=1), output=tmp_path / "run")


def test_degradations_decoder_learns_from_the_bad_pictures(tmp_path, write_recipe, pair_shard):
    base = tmp_path / "base"
    two_mode_pipeline().save_pretrained(base)
    table = TABLE.format(base=base) + (
        'mode = "degradation"\nfidelity_px = 8\n'
        f'pairs = [{{layout = "shards", path = "{pair_shard}"}}]\n'
        f'val_pairs = [{{layout = "shards", path = "{pair_shard}"}}]\n'
    )
    numbers = run_recipe(write_recipe("decoder", table, steps=3), output=tmp_path / "run")
    assert numbers["grain_ratio"] > 0
    decoder = FlipnetPipeline.from_pretrained(tmp_path / "run/final").decoders["degradation"]
    assert any(strength.abs().sum() > 0 for strength in decoder.noise_strengths)


def test_perceptual_features_tell_a_blurred_picture_from_a_brighter_one():
    network = PerceptualNetwork()
    face = astronaut()[32:160, 160:288]
    image = torch.from_numpy(face.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    blurred = torch.nn.functional.avg_pool2d(image, 5, 1, 2)
    brighter = (image + (blurred - image).abs().mean()).clamp(-1, 1)
    own = network(image)
    assert [x.shape[-1] for x in own] == [image.shape[-1] // stride for stride in (4, 8, 16)]
    assert feature_distance(own, own) == 0
    assert feature_distance(network(blurred), own) > 2 * feature_distance(network(brighter), own)


def test_places_run_from_corner_to_corner_of_the_face():
    corners = torch.tensor([[0, 0], [32, 16]])
    place = places(corners, 32, 64)
    assert place.shape == (2, 2, 32, 32)
    assert place[0, :, 0, 0].tolist() == [-1.0, -1.0]
    assert place[1, 1, -1, 0] == pytest.approx(1.0)
    assert place[1, 0, 0, 0] == pytest.approx(16 / 63 * 2 - 1)
