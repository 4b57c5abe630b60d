"""Training on faces that are streamed: the same stage, its batches from URLs, resumed to the very same samples."""

import tarfile

import fsspec
import pytest
import torch

from flipnet.config import RecipeError, load_recipe
from flipnet.training import restoration, run_recipe

RESTORATION = 'base = ""\nface_encoder = ""\nstart_from = "{model}"\nlora_rank = 4\ndefault_steps = 1\n'


@pytest.fixture
def shard_url(face_folder, tmp_path):
    """URL of a shard with the six faces of the folder."""
    with tarfile.open(tmp_path / "faces.tar", "w") as shard:
        for path in sorted(face_folder.iterdir()):
            shard.add(path, path.name)
    files = fsspec.filesystem("memory")
    files.put(str(tmp_path / "faces.tar"), "/training/faces.tar")
    yield "memory://training/faces.tar"
    files.rm("/training", recursive=True)


def streamed(url):
    return ("data.streaming=true", f'data.train=["{url}"]', f'data.val=["{url}"]', "data.shuffle_buffer=3")


@pytest.fixture
def recipe_path(write_recipe, tiny_checkpoint):
    return write_recipe("restoration", RESTORATION.format(model=tiny_checkpoint), steps=5)


def test_restoration_trains_on_a_stream(tmp_path, recipe_path, shard_url):
    numbers = run_recipe(recipe_path, (*streamed(shard_url), "optim.steps=2"), tmp_path / "run")
    assert 0 < numbers["psnr_1"] < 60
    assert (tmp_path / "run/final").is_dir()
    cached = {path.name.partition("-")[0] for path in (tmp_path / "cache").iterdir()}
    assert cached == {"index"}  # nothing was decoded beforehand


def test_a_resumed_run_sees_the_very_same_batches_and_every_face_once_per_epoch(recipe_path, shard_url):
    recipe = load_recipe(recipe_path, (*streamed(shard_url), "optim.batch_size=3", "optim.steps=6"))
    stage = restoration.build(recipe)
    whole = list(stage.batches(0))
    resumed = list(stage.batches(2))
    assert [batch["key"] for batch in resumed] == [batch["key"] for batch in whole[2:]]
    assert all(torch.equal(a["lq"], b["lq"]) for a, b in zip(resumed, whole[2:], strict=True))
    epochs = [sorted(whole[i]["key"] + whole[i + 1]["key"]) for i in (0, 2, 4)]
    assert epochs == [[f"synthetic-any-{index:04d}" for index in range(6)]] * 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.group_power=0.5", "leave out source_weights and group_power"),
        ("data.streaming=false", "need streaming = true"),
        ("restoration.lq_variants=2", r"set restoration\.lq_variants = 0"),
    ],
)
def test_contradictions_are_named(recipe_path, change, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe(recipe_path, (*streamed("https://host/faces.tar"), change))


def test_stages_that_need_decoded_faces_do_not_stream(write_recipe):
    path = write_recipe("autoencoder", "channels = [8, 8]\nlatent_channels = 4\ncrop_px = 32")
    with pytest.raises(RecipeError, match="stage 'autoencoder' trains on decoded faces"):
        load_recipe(path, ("data.streaming=true",))
