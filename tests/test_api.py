"""The Python API as a user meets it: load, restore a photo however it is given, batches, and the HTTP example."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

import flipnet
from flipnet.images import ImageError, faces_to_tensor, read_photo
from flipnet.pipelines.invention import SAMPLING_STEPS, sample_seeds
from flipnet.types import FlipnetError

EXAMPLE = Path(__file__).parents[1] / "examples" / "serve_fastapi.py"


@pytest.fixture(scope="module")
def restorer(tiny_checkpoint):
    return flipnet.load(tiny_checkpoint, device="cpu")


@pytest.fixture(scope="module")
def portrait():
    return skimage.data.astronaut()[:256, 96:352]


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)


def test_a_photo_may_be_given_in_any_form(tmp_path, restorer, portrait):
    path = tmp_path / "a.png"
    Image.fromarray(portrait).save(path)
    forms = [path, str(path), Image.open(path), portrait, read_photo(path)]
    results = [restorer.restore_photo(form, seed=3) for form in forms]
    for result in results:
        np.testing.assert_array_equal(result.photo.pixels, results[0].photo.pixels)
        assert [face.status for face in result.faces] == ["restored"]
    assert not np.array_equal(results[0].photo.pixels, portrait)


def test_a_pil_image_keeps_its_metadata_and_turns_upright(restorer, portrait):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(portrait)))
    turned.info["exif"] = exif.tobytes()
    result = restorer.restore_photo(turned).photo
    np.testing.assert_array_equal(result.pixels[-10:], portrait[-10:])
    assert b"Maker" in result.exif


def test_gray_and_16_bit_arrays_keep_what_they_are(restorer, portrait):
    gray = restorer.restore_photo(portrait[..., 1]).photo
    assert gray.grayscale
    deep = restorer.restore_photo(portrait.astype(np.uint16) * 257).photo
    assert deep.pixels.dtype == np.uint16


@pytest.mark.parametrize("array", [np.zeros((9, 9, 3)), np.zeros((9, 9, 5), np.uint8), np.zeros(9, np.uint8)])
def test_other_arrays_are_refused_by_name(restorer, array):
    with pytest.raises(ImageError, match=r"the image: expected uint8 or uint16"):
        restorer.restore_photo(array)


def test_results_are_frozen_and_compare_people(restorer, portrait):
    result = restorer.restore_photo(portrait)
    assert result.faces[0].likeness.method in ("dlib", "face encoder")
    for instance in (result, result.faces[0], result.faces[0].likeness, result.photo):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(instance, dataclasses.fields(instance)[0].name, None)


def test_faces_are_selected_by_index_or_by_rules(restorer, portrait):
    both = np.concatenate([portrait, portrait], axis=1)
    result = restorer.restore_photo(both, select=(1,))
    assert [face.status for face in result.faces] == ["skipped", "restored"]
    rules = flipnet.FaceSelection(exclude=(0, 1))
    assert {face.reason for face in restorer.restore_photo(both, select=rules).faces} == {"excluded"}


def test_aligned_faces_take_no_photo_options(restorer, crops):
    result = restorer.restore_photo(crops[0], aligned=True, seed=4)
    np.testing.assert_array_equal(result.photo.pixels, restorer.restore_faces(crops[:1], seed=4).images[0])
    with pytest.raises(FlipnetError, match="select and upscale are for whole photos"):
        restorer.restore_photo(crops[0], aligned=True, upscale=2)


def test_batches_may_be_given_in_any_form_and_do_not_depend_on_their_size(restorer, crops):
    whole = restorer.restore_faces(crops, seed=10)
    assert whole.images.dtype == np.uint8
    assert whole.images.shape == crops.shape
    assert whole.seeds == (10, 11, 12)
    for form in (faces_to_tensor(crops), [Image.fromarray(crop) for crop in crops]):
        np.testing.assert_array_equal(restorer.restore_faces(form, seed=10).images, whole.images)
    one = restorer.restore_faces(crops[2:], seed=12).images[0].astype(int)
    assert np.abs(one - whole.images[2]).max() <= 1


def test_several_samples_bring_findings(tiny_checkpoint, portrait, crops):
    several = flipnet.load(tiny_checkpoint, device="cpu", samples=3)
    assert several.faces.steps >= SAMPLING_STEPS
    faces = several.restore_faces(crops[:1], seed=2)
    (findings,) = faces.findings
    assert findings.seeds == sample_seeds(2, 3)
    assert findings.spread.shape == (64, 64)
    assert 0 < findings.spread_mean_levels <= findings.spread_p95_levels
    (face,) = several.restore_photo(portrait, seed=2).faces
    assert face.findings.consistency is None
    assert flipnet.load(tiny_checkpoint, device="cpu", samples=2, steps=1).faces.steps == 1


def test_what_cannot_be_loaded_is_named(tiny_checkpoint):
    with pytest.raises(FlipnetError, match="degradation"):
        flipnet.load(tiny_checkpoint, device="cpu", samples=2, choose="faithful")
    with pytest.raises(FlipnetError, match="choose 'best' is not one of mean, faithful"):
        flipnet.load(tiny_checkpoint, device="cpu", samples=2, choose="best")
    with pytest.raises(FlipnetError, match="samples 0"):
        flipnet.load(tiny_checkpoint, device="cpu", samples=0)
    with pytest.raises(FlipnetError, match="nowhere"):
        flipnet.load("nowhere/at-all")


def test_a_diffusers_user_is_at_home(tiny_checkpoint, restorer, crops):
    pipeline = flipnet.FlipnetPipeline.from_pretrained(tiny_checkpoint)
    picture = Image.fromarray(crops[0])
    output = pipeline(image=picture, phi=1.0, generator=torch.Generator().manual_seed(4))
    assert output.images[0].size == (64, 64)
    same = restorer.restore_faces([picture], seed=4).images[0].astype(int)
    assert np.abs(np.array(output.images[0]) - same).max() <= 1


@pytest.fixture
def client(tiny_checkpoint, monkeypatch):
    pytest.importorskip("fastapi", reason="FastAPI is not installed")
    pytest.importorskip("httpx", reason="httpx, which FastAPI's test client needs, is not installed")
    from fastapi.testclient import TestClient

    spec = importlib.util.spec_from_file_location("serve_fastapi", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "serve_fastapi", example)
    spec.loader.exec_module(example)
    example.MODEL = str(tiny_checkpoint)
    example.MAX_BYTES = 1 << 18
    return TestClient(example.app)


def test_the_http_example_restores_lists_and_refuses(tmp_path, client, portrait):
    Image.fromarray(portrait).save(tmp_path / "a.jpg", quality=95)
    picture = (tmp_path / "a.jpg").read_bytes()
    answer = client.post("/restore?seed=1&upscale=2", content=picture)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.headers["x-faces-restored"] == "1"
    (tmp_path / "b.png").write_bytes(answer.content)
    restored = read_photo(tmp_path / "b.png")
    assert restored.pixels.shape == (512, 512, 3)
    assert "AI-restored" in dict(restored.text)["Disclaimer"]
    (face,) = client.post("/faces", content=picture).json()
    assert face["index"] == 0
    assert face["box_px"][0] < 124 < face["box_px"][2]  # the nose of the portrait, read off the picture
    broken = client.post("/restore", content=b"not a picture")
    assert broken.status_code == 422
    assert broken.json()["detail"] == "not a picture, or of a format that is not supported"
    assert client.post("/restore", content=bytes(1 << 19)).status_code == 413
    assert client.post("/restore?phi=9", content=picture).status_code == 422
