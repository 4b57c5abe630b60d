import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from flipnet.cli import main
from flipnet.models.autoencoder import CompactAutoencoder
from flipnet.pipelines.onnx_export import RestorationGraph
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.pipelines.restore import FaceRestorer
from tiny import tiny_pipeline
from two_modes import two_mode_pipeline


def export(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(["export", *map(str, arguments)])
    return stop.value.code


def test_export_halves_the_weights_and_swaps_the_decoder(tmp_path, tiny_checkpoint, capsys):
    vae = tiny_pipeline().vae
    with torch.no_grad():
        vae.decoder.head.bias.fill_(0.25)
    vae.save_pretrained(tmp_path / "vae")
    assert export(tiny_checkpoint, "-o", tmp_path / "out", "--vae", tmp_path / "vae") == 0
    assert f"{tmp_path / 'out'}: " in capsys.readouterr().out
    exported = FlipnetPipeline.from_pretrained(tmp_path / "out")
    assert exported.vae.decoder.head.bias.unique().tolist() == [0.25]


def test_vae_of_another_shape_is_refused(tmp_path, tiny_checkpoint, capsys):
    CompactAutoencoder(channels=(8, 8, 8), blocks=1, latent_channels=6).save_pretrained(tmp_path / "vae")
    assert export(tiny_checkpoint, "-o", tmp_path / "out", "--vae", tmp_path / "vae") == 2
    assert "its latents have another shape" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_default_steps_travel_with_the_checkpoint(tmp_path, tiny_checkpoint, capsys):
    assert export(tiny_checkpoint, "-o", tmp_path / "out", "--steps", "restoration=2") == 0
    assert FlipnetPipeline.from_pretrained(tmp_path / "out").network.default_steps == {"restoration": 2}
    assert FaceRestorer.from_checkpoint(tmp_path / "out").steps == 2
    assert export(tiny_checkpoint, "-o", tmp_path / "no", "--steps", "painting=2") == 2
    assert "no mode 'painting'" in capsys.readouterr().err
    assert export(tiny_checkpoint, "-o", tmp_path / "no", "--steps", "restoration=0") == 2


def test_a_narrowed_lora_makes_a_smaller_checkpoint_that_works(tmp_path, tiny_checkpoint, capsys):
    assert export(tiny_checkpoint, "-o", tmp_path / "out", "--lora-rank", "1") == 0
    assert re.search(r"restoration: LoRA of rank 1, \d+\.\d\d% of its energy kept", capsys.readouterr().out)
    whole, narrow = (
        folder / "modes" / "restoration.safetensors" for folder in (tiny_checkpoint, tmp_path / "out")
    )
    assert narrow.stat().st_size < whole.stat().st_size
    faces = torch.zeros(1, 3, *[FaceRestorer.from_checkpoint(tmp_path / "out").native_size_px] * 2)
    assert FaceRestorer.from_checkpoint(tmp_path / "out")(faces, [0]).isfinite().all()
    assert export(tiny_checkpoint, "-o", tmp_path / "no", "--lora-rank", "painting=2") == 2
    assert export(tiny_checkpoint, "-o", tmp_path / "no", "--lora-rank", "0") == 2
    assert export(tiny_checkpoint, "--onnx", tmp_path / "no.onnx", "--lora-rank", "1") == 2
    assert not list(tmp_path.glob("no*"))


def test_averaged_runs_have_the_mean_of_their_weights(tmp_path, tiny_checkpoint, capsys):
    other = FlipnetPipeline.from_pretrained(tiny_checkpoint)
    with torch.no_grad():
        other.network.tau("restoration").null.add_(2)
    other.save_pretrained(tmp_path / "other")
    averaged = ("--average", tmp_path / "other", "--dtype", "float32")
    assert export(tiny_checkpoint, "-o", tmp_path / "out", *averaged) == 0
    mean, first = (FlipnetPipeline.from_pretrained(folder) for folder in (tmp_path / "out", tiny_checkpoint))
    nulls = [pipeline.network.tau("restoration").null for pipeline in (mean, first)]
    torch.testing.assert_close(nulls[0], nulls[1] + 1)
    two_mode_pipeline().save_pretrained(tmp_path / "two")
    assert export(tiny_checkpoint, "-o", tmp_path / "no", "--average", tmp_path / "two") == 2
    assert f"{tmp_path / 'two'}: its modes and decoders are not shaped like" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_documented_example_restores_a_face_where_torch_cannot_be_imported(tmp_path, tiny_checkpoint, capsys):
    file = tmp_path / "new" / "restorer.onnx"
    assert export(tiny_checkpoint, "--onnx", file, "--steps", 2, "--phi", 0.5) == 0
    assert re.search(r"restorer.onnx: .* 2 steps, phi 0.5, within \S+ levels", capsys.readouterr().out)
    assert [path.name for path in file.parent.iterdir()] == ["restorer.onnx"]

    face = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(face).save(tmp_path / "bad.png")
    documentation = Path(__file__).parents[1] / "docs" / "onnx.md"
    example = re.search(r"```python\n(.*?)```", documentation.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert len(example.strip().splitlines()) <= 20
    blocked = "import sys; sys.modules.update(dict.fromkeys(('torch', 'flipnet', 'diffusers', 'onnx')))\n"
    arguments = [str(file), str(tmp_path / "bad.png"), str(tmp_path / "good.png")]
    subprocess.run([sys.executable, "-c", blocked + example, *arguments], check=True)

    graph = RestorationGraph(FlipnetPipeline.from_pretrained(tiny_checkpoint), phi=0.5, steps=2)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 4, 8, 8), np.float32))
    with torch.no_grad():
        expected = graph(torch.from_numpy(face).permute(2, 0, 1)[None] / 127.5 - 1, noise)
    expected = (expected[0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(np.asarray(Image.open(tmp_path / "good.png")) - expected).max() <= 2


def test_exported_file_restores_photos_without_importing_diffusers(tmp_path, tiny_checkpoint):
    assert export(tiny_checkpoint, "--onnx", tmp_path / "restorer.onnx", "--steps", 1) == 0
    face = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(face).save(tmp_path / "bad.png")
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('diffusers', 'peft', 'transformers')));"
        "from flipnet.cli import main; main(sys.argv[1:])"
    )
    restore = [sys.executable, "-c", code, "restore", "bad.png", "-o", "out", "--model", "restorer.onnx"]
    subprocess.run([*restore, "--aligned"], check=True, cwd=tmp_path)
    assert np.asarray(Image.open(tmp_path / "out" / "bad.png")).shape == (64, 64, 3)
    refused = subprocess.run(
        [*restore, "--aligned", "--steps", "3", "--overwrite"], cwd=tmp_path, capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert "phi 1 and steps 1" in refused.stderr


def test_stored_type_of_the_weights_changes_the_size_of_the_file(tmp_path, tiny_checkpoint):
    for dtype in ("float32", "bfloat16"):
        assert export(tiny_checkpoint, "--onnx", tmp_path / dtype, "--steps", 1, "--dtype", dtype) == 0
        about = onnxruntime.InferenceSession(tmp_path / dtype).get_modelmeta().custom_metadata_map
        assert about["licence"] == f"that of {tiny_checkpoint}"
    # Beside the weights, of which most are halved, the tiny file holds a megabyte of names.
    saved = (tmp_path / "float32").stat().st_size - (tmp_path / "bfloat16").stat().st_size
    assert saved > 400_000


def test_options_that_do_not_go_together_are_refused(tmp_path, tiny_checkpoint, capsys):
    onnx, folder = tmp_path / "x.onnx", tmp_path / "folder"
    for arguments, reason in (
        ((), "give either --output or --onnx"),
        (("-o", folder, "--onnx", onnx), "give either --output or --onnx"),
        (("-o", folder, "--phi", 1), "works with any phi"),
        (("--onnx", onnx, "--steps", "degradation=2"), "restores only"),
    ):
        assert export(tiny_checkpoint, *arguments) == 2
        assert reason in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []
