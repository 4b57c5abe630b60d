"""A pipeline loaded with some of its modes: same faces, nothing lost when it is saved, nothing wrong overlooked."""

import shutil

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from flipnet import checkpoints
from flipnet.checkpoints import CheckpointError
from flipnet.cli import main
from flipnet.models.mode_decoder import ModeDecoder
from flipnet.pipelines.degrade import FaceDegrader
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.pipelines.restore import FaceRestorer
from flipnet.types import FlipnetError
from two_modes import two_mode_pipeline

RESTORATION, DEGRADATION = (f"modes/{name}.safetensors" for name in ("restoration", "degradation"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder of both modes, each with a decoder of its own."""
    pipeline = two_mode_pipeline()
    for name in ("restoration", "degradation"):
        pipeline.decoders[name] = ModeDecoder.from_vae(pipeline.vae, fuses=name == "restoration")
    folder = tmp_path_factory.mktemp("saved") / "model"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path, saved):
    """A copy to spoil."""
    return shutil.copytree(saved, tmp_path / "model")


def make_useless(file):
    """Give a mode more steps than its scheduler has timesteps, which only a trial face finds out."""
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata() | {"default_steps": "1001"}
    save_file(load_file(file), file, metadata)


@pytest.mark.parametrize("mapping", [FaceRestorer, FaceDegrader])
def test_its_own_mode_alone_maps_faces_bit_for_bit_as_beside_the_other(saved, mapping):
    whole, alone = (
        mapping.from_checkpoint(saved, steps=2, device="cpu", own_mode_only=own) for own in (False, True)
    )
    assert list(alone.pipeline.network.adapters) == list(alone.pipeline.decoders) == [mapping.mode]
    assert set(whole.pipeline.network.adapters) == {"restoration", "degradation"}
    faces = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(5)) * 2 - 1
    assert torch.equal(alone(faces, [1, 2]), whole(faces, [1, 2]))


def test_a_mode_that_was_left_out_says_so_when_it_is_asked_for(saved):
    pipeline = FaceRestorer.from_checkpoint(saved, device="cpu", own_mode_only=True).pipeline
    with pytest.raises(FlipnetError) as raised:
        FaceDegrader(pipeline, phi=1.0, steps=None, model_name="tiny")
    assert str(raised.value) == "tiny: Mode 'degradation' was left out when this model was loaded."


def test_a_mode_that_the_checkpoint_lacks_is_named(saved):
    with pytest.raises(FlipnetError) as raised:
        FlipnetPipeline.from_pretrained(saved, modes=("painting",))
    assert str(raised.value) == (
        f"{saved}: This model has no mode 'painting'; it has restoration, degradation."
    )


def test_saving_what_was_loaded_in_part_is_refused_and_changes_nothing(folder):
    part = FlipnetPipeline.from_pretrained(folder, modes=("restoration",))
    with pytest.raises(FlipnetError) as raised:
        part.save_pretrained(folder)
    assert str(raised.value) == (
        f"{folder}: not saved, as mode 'degradation' was left out when this model was loaded."
    )
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    checkpoints.verify(folder)


def test_all_modes_asked_for_by_name_can_be_saved(folder):
    FlipnetPipeline.from_pretrained(folder, modes=("degradation", "restoration")).save_pretrained(folder)
    assert set(FlipnetPipeline.from_pretrained(folder).network.adapters) == {"restoration", "degradation"}


@pytest.mark.parametrize(
    "name",
    [
        DEGRADATION,
        "decoders/degradation/config.json",
        "decoders/degradation/diffusion_pytorch_model.safetensors",
    ],
)
def test_a_file_of_a_mode_that_is_left_out_must_be_there(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError) as raised:
        FlipnetPipeline.from_pretrained(folder, modes=("restoration",))
    assert str(raised.value).startswith(f"{folder / name}: missing, model_index.json lists this ")


def test_a_bundled_models_checksums_are_compared_for_modes_that_are_left_out(folder, monkeypatch):
    monkeypatch.setattr(checkpoints, "BUNDLED", folder.parent)
    assert FlipnetPipeline.from_pretrained("model", modes=("restoration",)).network.left_out
    content = bytearray((folder / DEGRADATION).read_bytes())
    content[-1] ^= 1
    (folder / DEGRADATION).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"degradation\.safetensors: missing or damaged"):
        FlipnetPipeline.from_pretrained("model", modes=("restoration",))


def test_only_the_modes_that_are_loaded_are_tried(folder):
    make_useless(folder / DEGRADATION)
    with pytest.raises(CheckpointError, match="mode 'degradation' takes 1001 steps"):
        FlipnetPipeline.from_pretrained(folder)
    assert FlipnetPipeline.from_pretrained(folder, modes=("restoration",)).network.mode == "restoration"
    make_useless(folder / RESTORATION)
    with pytest.raises(CheckpointError, match="mode 'restoration' takes 1001 steps"):
        FlipnetPipeline.from_pretrained(folder, modes=("restoration",))


def test_restoring_needs_the_degradation_mode_for_several_samples_alone(folder, tmp_path, capsys):
    Image.new("RGB", (64, 64), (120, 90, 80)).save(tmp_path / "face.png")
    options = ["--aligned", "--model", str(folder), "--device", "cpu", "--steps", "1", "--overwrite"]
    restore = ["restore", str(tmp_path / "face.png"), "-o", str(tmp_path / "out"), *options]

    def code(*more):
        with pytest.raises(SystemExit) as left:
            main([*restore, *more])
        return left.value.code

    faithful = ("--samples", "2", "--choose", "faithful")
    assert code() == code(*faithful) == 0
    make_useless(folder / DEGRADATION)
    assert code() == 0
    capsys.readouterr()
    assert code(*faithful) != 0
    assert "mode 'degradation' takes 1001 steps" in capsys.readouterr().err
