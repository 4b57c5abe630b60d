import pytest
import torch

from flipnet.cli import main
from flipnet.models.autoencoder import CompactAutoencoder
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.pipelines.restore import FaceRestorer
from tiny import tiny_pipeline


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
