"""Checkpoints whose files are sound one by one: what fuzzing found to be loaded, and to fail later or never end."""

from __future__ import annotations

import json
import os
import time

import pytest
import torch
from checkpoint_changes import FACES, MODE, UNET, VAE, change_json, change_tensors, refusal
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from flipnet.checkpoints import CheckpointError
from flipnet.models.base import load_base
from flipnet.models.mode_decoder import ModeDecoder
from flipnet.pipelines.pipeline import FlipnetPipeline
from sd_like import original_state, save_single_file, sd_unet, sd_vae

BILLION = 10**9


@pytest.fixture(autouse=True)
def soon():
    """Nothing may keep the reader busy for as long as a config pleases."""
    started = time.process_time()
    yield
    assert time.process_time() - started < 20


@pytest.mark.parametrize("count", [100_000, BILLION, -BILLION, 10**4000])
@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("unet", "layers_per_block"),
        ("unet", "transformer_layers_per_block"),
        ("vae", "blocks"),
        ("face_encoder", "blocks"),
    ],
)
def test_a_config_cannot_ask_for_more_layers_than_are_stored(folder, part, key, count):
    change_json(folder / part / "config.json", **{key: count})
    sentence = refusal(folder)
    assert sentence.startswith(f"{folder / part}: ")
    if count == 100_000:
        assert sentence.endswith("it asks for more tensors than are stored")
    elif count > 0:
        assert sentence.endswith("its config.json holds a whole number above 1000000")


@pytest.mark.parametrize("name", [UNET, VAE, FACES, MODE])
@pytest.mark.parametrize(
    ("dtype", "called"),
    [(torch.float8_e4m3fn, "F8_E4M3"), (torch.int64, "I64"), (torch.bool, "BOOL"), (torch.complex64, "C64")],
)
def test_tensors_that_are_no_plain_weights_are_refused_by_name(folder, name, dtype, called):
    def change(tensors):
        tensors[min(tensors)] = torch.zeros(tensors[min(tensors)].shape, dtype=dtype)

    key = change_tensors(folder / name, change)
    assert refusal(folder).endswith(f"{folder / name}: tensor {key} is of type {called}, no plain weights")


def test_weights_in_half_precision_are_read(folder):
    for name in (UNET, VAE, FACES, MODE):
        change_tensors(
            folder / name, lambda tensors: tensors.update({k: v.half() for k, v in tensors.items()})
        )
    assert FlipnetPipeline.from_pretrained(folder).unet.dtype == torch.float32


def test_a_mode_listed_twice_is_refused(folder):
    change_json(folder / "model_index.json", modes=["restoration", "restoration"])
    assert refusal(folder) == f"{folder / 'model_index.json'}: 'modes' holds a name more than once"


def test_a_pipe_in_the_folder_is_refused_and_not_waited_for(folder):
    (folder / "unet/config.json").unlink()
    os.mkfifo(folder / "unet/config.json")
    assert refusal(folder) == f"{folder / 'unet/config.json'}: neither a file nor a folder"


@pytest.mark.parametrize("input_px", [4097, BILLION, True, 32.0])
def test_a_face_encoder_cannot_ask_for_faces_of_any_size(folder, input_px):
    change_json(folder / "face_encoder/config.json", input_px=input_px)
    assert str(folder) in refusal(folder)


def test_an_embedding_of_more_tokens_than_the_mode_has_takes_no_memory(folder):
    # 4096 px would be 262,144 tokens, and a linear map from as many.
    change_json(folder / "face_encoder/config.json", input_px=4096)
    assert refusal(folder).startswith(
        f"{folder / MODE}: its tau.position does not have a row for every token"
    )


@pytest.mark.parametrize(
    "sample_size", [None, 0, -8, 1.5, True, "8", [8, 8], 513, 1_000_000], ids=lambda size: json.dumps(size)
)
def test_a_native_size_out_of_range_is_refused(folder, sample_size):
    change_json(folder / "unet/config.json", sample_size=sample_size)
    assert refusal(folder).startswith(f"{folder}: its parts do not work together: sample_size ")


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("unet", {"freq_shift": [0]}),
        ("unet", {"class_embed_type": "identity"}),
        ("vae", {"latents_mean": [0.0], "latents_std": [1.0, 1.0]}),
        ("vae", {"latents_mean": ["a"], "latents_std": ["b"]}),
        ("vae", {"latents_mean": [0.0] * 4, "latents_std": [0.0] * 4}),
        ("vae", {"scaling_factor": "large"}),
        ("scheduler", {"prediction_type": float("nan")}),
        ("scheduler", {"prediction_type": ["v_prediction"]}),
        ("scheduler", {"timestep_spacing": {"value": "leading"}}),
        ("scheduler", {"timestep_spacing": "leading", "steps_offset": 0.5}),
        ("scheduler", {"num_train_timesteps": 1}),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:50],
)
def test_a_config_that_only_fails_in_use_is_refused_when_it_is_loaded(folder, part, values):
    change_json(folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json"), **values)
    assert refusal(folder).startswith(f"{folder}: its parts do not work together: ")


def test_a_mode_of_more_steps_than_there_are_timesteps_is_refused(folder):
    with safe_open(folder / MODE, "pt") as opened:
        metadata = opened.metadata() | {"default_steps": "1001"}
    save_file(load_file(folder / MODE), folder / MODE, metadata)
    assert "takes 1001 steps, more than its scheduler has timesteps" in refusal(folder)


def test_a_lora_without_a_size_is_refused(folder):
    change_tensors(
        folder / MODE,
        lambda tensors: tensors.update(
            {next(k for k in tensors if k.endswith("lora_A.weight")): torch.zeros(())}
        ),
    )
    assert "do not have the sizes that its metadata state" in refusal(folder)


def test_a_decoder_of_another_size_is_refused(folder):
    pipeline = FlipnetPipeline.from_pretrained(folder)
    pipeline.decoders["restoration"] = ModeDecoder(channels=(8, 8), blocks=1, unshuffle=2, latent_channels=4)
    pipeline.save_pretrained(folder)
    assert "maps a face of 8 pixels to a tensor of (1, 3, 4, 4)" in refusal(folder)


# --------------------------------------------------------------------------------------------- single files


def single_refusal(file) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_base(str(file), "epsilon")
    sentence = str(caught.value)
    assert sentence.startswith(f"{file}: its ")
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.diffusion_model.input_blocks.1.0.in_layers.2.weight", (BILLION, 0, 3, 3)),
        ("model.diffusion_model.out.2.weight", ()),
        (f"model.diffusion_model.input_blocks.{BILLION}.0.op.weight", (1,)),
        (f"model.diffusion_model.input_blocks.{'9' * 5000}.0.op.weight", (1,)),
        (f"first_stage_model.encoder.down.0.block.{BILLION}.conv1.weight", (1,)),
        (f"first_stage_model.encoder.down.{BILLION}.block.0.conv1.weight", (1,)),
        ("first_stage_model.encoder.down.0.block.0.conv1.weight", (BILLION, 0)),
        ("first_stage_model.encoder.conv_out.weight", (0, 32, 3, 3)),
    ],
    ids=lambda value: value[:70] if isinstance(value, str) else str(value),
)
def test_a_single_file_whose_shapes_or_numbers_lie_is_refused_soon(tmp_path, name, shape):
    file = save_single_file(tmp_path / "base.safetensors")
    change_tensors(file, lambda tensors: tensors.update({name: torch.zeros(shape)}))
    assert "is not Stable Diffusion's: " in single_refusal(file)


@pytest.mark.parametrize("part", ["model.diffusion_model", "first_stage_model"])
def test_a_single_file_with_weights_that_are_not_finite_is_refused(tmp_path, part):
    file = save_single_file(tmp_path / "base.safetensors")

    def spoil(tensors):
        tensors[max(key for key in tensors if key.startswith(part))].view(-1)[0] = float("nan")

    change_tensors(file, spoil)
    with pytest.raises(CheckpointError, match=r"tensor .* holds values that are not finite"):
        load_base(str(file), "epsilon")


def test_every_tensor_of_a_single_file_may_be_missing(tmp_path):
    state = original_state(sd_unet(), sd_vae())
    file = tmp_path / "base.safetensors"
    for name in list(state)[::25]:
        save_file({key: value.contiguous() for key, value in state.items() if key != name}, file)
        single_refusal(file)
