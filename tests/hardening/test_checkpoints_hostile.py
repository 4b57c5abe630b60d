"""Checkpoint folders that a stranger prepared: refused by name, nothing run, nothing read from outside."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_changes import MODE, UNET, VAE, WEIGHTS, change_json, change_tensors, refusal
from command_line import flipnet
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from flipnet import checkpoints
from flipnet.checkpoints import CheckpointError
from flipnet.pipelines.pipeline import FlipnetPipeline


class Payload:
    """A pickle of this makes a folder when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_the_unspoilt_folder_loads(folder):
    FlipnetPipeline.from_pretrained(folder)


# ------------------------------------------------------------------------------------------------- pickles


@pytest.mark.parametrize(
    "name",
    ["unet/diffusion_pytorch_model.bin", "data.pkl", "modes/restoration.PT", ".cache/x.ckpt", "vae/a.pth"],
)
def test_a_pickle_is_refused_by_name_and_never_loaded(tmp_path, folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    assert refusal(folder).startswith(f"{folder / name}: a pickle")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_pickle_under_a_safe_name_is_not_loaded(tmp_path, folder, name):
    (folder / name).write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    assert f"{folder / name}: no whole safetensors file" in refusal(folder)
    assert not (tmp_path / "ran").exists()


def test_code_beside_the_weights_is_not_run(tmp_path, folder):
    (folder / "unet/evil.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})\n")
    change_json(folder / "unet/config.json", auto_map={"AutoModel": "evil.Evil"}, custom_pipeline="evil")
    change_json(folder / "model_index.json", unet=["evil", "Evil"], trust_remote_code=True)
    FlipnetPipeline.from_pretrained(folder)
    assert not (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("size", [0, 5, 100, 0.5, -1])
def test_truncated_weights_are_refused_by_name(folder, name, size):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * size) if isinstance(size, float) else size])
    assert f"{folder / name}: no whole safetensors file" in refusal(folder)


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_header_that_claims_too_much_is_refused(folder, name):
    (folder / name).write_bytes((2**62).to_bytes(8, "little") + b"{}")
    assert f"{folder / name}: no whole" in refusal(folder)


@pytest.mark.parametrize("name", WEIGHTS)
def test_missing_weights_are_refused_by_name(folder, name):
    (folder / name).unlink()
    assert str(folder / name) in refusal(folder)


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("fault", ["missing", "surplus", "renamed", "reshaped", "longer"])
def test_tensors_that_do_not_fit_are_refused(folder, name, fault):
    def change(tensors):
        key = min(tensors)
        if fault == "surplus":
            tensors["surplus"] = torch.zeros(2)
        elif fault == "reshaped":
            tensors[key] = tensors[key].reshape(1, -1).contiguous()
        elif fault == "longer":
            tensors[key] = torch.cat([tensors[key], tensors[key]])
        else:
            value = tensors.pop(key)
            if fault == "renamed":
                tensors["renamed"] = value

    change_tensors(folder / name, change)
    sentence = refusal(folder)
    assert sentence.startswith((f"{folder / name}:", f"{(folder / name).parent}:"))
    assert not any(word in sentence.lower() for word in ("newly initialized", "traceback"))


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(folder, name, value):
    key = change_tensors(folder / name, lambda tensors: tensors[min(tensors)].view(-1)[-1:].fill_(value))
    sentence = refusal(folder)
    assert "not finite" in sentence
    assert key in sentence


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("lora_rank", value) for value in ("1000000000", "-1", "0", "four", "")),
        *(("context_tokens", value) for value in ("1000000000", "-1", "x")),
        *(("default_steps", value) for value in ("0", "-5", "1.5")),
    ],
)
def test_mode_metadata_that_lie_are_refused_before_memory_is_taken(folder, key, value):
    tensors = load_file(folder / MODE)
    with safe_open(folder / MODE, "pt") as opened:
        metadata = opened.metadata()
    save_file(tensors, folder / MODE, metadata | {key: value})
    assert refusal(folder).startswith(f"{folder / MODE}: ")


# --------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize("key", ["modes", "decoders"])
@pytest.mark.parametrize(
    "names",
    [["../../evil"], ["/etc/passwd"], ["a/b"], ["..\\evil"], [""], ["."], [7], [None], "text", {"a": 1}, 5],
)
def test_names_that_are_paths_are_refused(folder, key, names):
    change_json(folder / "model_index.json", **{key: names})
    assert refusal(folder).startswith(f"{folder / 'model_index.json'}: '{key}' ")


@pytest.mark.parametrize("name", [*WEIGHTS, "unet/config.json", "vae"])
def test_a_link_that_leads_out_is_refused_by_name(tmp_path, folder, name):
    outside = tmp_path / "outside"
    shutil.move(folder / name, outside)
    (folder / name).symlink_to(outside)
    assert refusal(folder).startswith(f"{folder / name}: a link that leads out of the checkpoint")


def test_a_link_loop_is_no_endless_search(folder):
    (folder / "unet/loop").symlink_to(folder / "unet")
    (folder / "unet/self").symlink_to(folder / "unet/self")
    FlipnetPipeline.from_pretrained(folder)


def test_links_of_the_hub_cache_are_followed(tmp_path, folder):
    snapshot = tmp_path / "models--a--b/snapshots/0123"
    shutil.copytree(folder, snapshot)
    blobs = tmp_path / "models--a--b/blobs"
    blobs.mkdir()
    for name in WEIGHTS:
        shutil.move(snapshot / name, blobs / name.replace("/", "-"))
        (snapshot / name).symlink_to(
            os.path.relpath(blobs / name.replace("/", "-"), (snapshot / name).parent)
        )
    FlipnetPipeline.from_pretrained(snapshot)


def test_weights_in_several_files_are_refused(tmp_path, folder):
    index = {"metadata": {"total_size": 1}, "weight_map": {"conv_in.weight": "../../outside.safetensors"}}
    (folder / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    shutil.copy(folder / UNET, tmp_path / "outside.safetensors")
    assert "several files" in refusal(folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside", "..\\outside"])
def test_checksums_cannot_point_outside(tmp_path, name):
    (tmp_path / "outside").write_text("x")
    model = tmp_path / "model"
    model.mkdir()
    (model / checkpoints.CHECKSUMS).write_text(json.dumps({name: "0" * 64}))
    with pytest.raises(CheckpointError, match=r"sha256\.json: lists .* leads out of the folder"):
        checkpoints.verify(model)


def test_a_changed_or_missing_file_fails_its_checksum(folder):
    checkpoints.verify(folder)
    data = bytearray((folder / VAE).read_bytes())
    data[-1] ^= 1
    (folder / VAE).write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{VAE}: missing or damaged"):
        checkpoints.verify(folder)
    (folder / VAE).unlink()
    with pytest.raises(CheckpointError, match=f"{VAE}: missing or damaged"):
        checkpoints.verify(folder)


# ------------------------------------------------------------------------------------------------- configs


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        '"text"',
        "[" * 100_000,
        '{"a":' * 100_000,
        "{}",
        b"\xff\xfe\x00",
        "1" * 5000,
    ],
    ids=lambda text: repr(text[:9]),
)
@pytest.mark.parametrize(
    "name", ["model_index.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"]
)
def test_json_that_is_no_config_is_refused(folder, name, text):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert refusal(folder).startswith((f"{folder / name}", f"{(folder / name).parent}"))


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("unet", {"block_out_channels": [10**6, 10**6]}),
        ("unet", {"block_out_channels": []}),
        ("unet", {"block_out_channels": "wide"}),
        ("unet", {"layers_per_block": -1}),
        ("unet", {"layers_per_block": "two"}),
        ("unet", {"down_block_types": ["EvilBlock", "EvilBlock"]}),
        ("unet", {"down_block_types": 5}),
        ("unet", {"norm_num_groups": 0}),
        ("unet", {"norm_num_groups": 7}),
        ("unet", {"attention_head_dim": 0}),
        ("unet", {"act_fn": "__import__('os')"}),
        ("unet", {"cross_attention_dim": None}),
        ("unet", {"quantization_config": {"quant_method": "torchao", "quant_type": "int8"}}),
        ("unet", {"_class_name": "os.system"}),
        ("unet", {"_class_name": ["UNet2DConditionModel"]}),
        ("vae", {"channels": [10**7, 8, 8]}),
        ("vae", {"channels": None}),
        ("vae", {"unshuffle": 0}),
        ("vae", {"blocks": 1.5}),
        ("vae", {"latent_channels": -4}),
        ("vae", {"_class_name": "UNet2DConditionModel"}),
        ("face_encoder", {"embedding_dim": 10**9}),
        ("face_encoder", {"input_px": "large"}),
        ("face_encoder", {"input_px": 0}),
        ("scheduler", {"_class_name": "EvilScheduler"}),
        ("scheduler", {"num_train_timesteps": 10**12}),
        ("scheduler", {"num_train_timesteps": "many"}),
        ("scheduler", {"beta_schedule": "no such"}),
        ("scheduler", {"trained_betas": "text"}),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:40],
)
def test_configs_that_describe_no_model_are_refused(folder, part, values):
    change_json(folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json"), **values)
    assert str(folder / part) in refusal(folder)


def test_the_command_line_says_it_in_one_line(tmp_path, folder):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (folder / "evil.pkl").write_bytes(b"x")
    run = flipnet("restore", tmp_path / "a.png", "-o", tmp_path / "out", "--model", folder)
    assert run.code == 2
    assert run.sentences() == [
        f"flipnet: {folder}/evil.pkl: a pickle, which could run any code; only safetensors are loaded"
    ]
