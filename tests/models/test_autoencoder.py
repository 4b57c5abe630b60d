import pytest
import torch
from diffusers import AutoencoderKL

from flipnet.checkpoints import CheckpointError
from flipnet.models.autoencoder import CompactAutoencoder, ResidualBlock
from flipnet.models.backbone import (
    decode_latents,
    downscale_factor,
    encode_latents,
    encoder_features,
    load_vae,
)
from flipnet.models.face_encoder import FaceEncoder, as_tokens


def tiny_vae(**extra):
    torch.manual_seed(0)
    return CompactAutoencoder(channels=(8, 8), blocks=1, latent_channels=4, **extra).eval()


def tiny_kl():
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        scaling_factor=0.5,
    ).eval()


def test_shapes_and_factor():
    vae = tiny_vae()
    latents = vae.encode(torch.zeros(2, 3, 32, 16)).latents
    assert latents.shape == (2, 4, 8, 4)
    assert vae.decode(latents).sample.shape == (2, 3, 32, 16)
    assert vae.downscale_factor == downscale_factor(vae) == 4


def test_fresh_residual_block_adds_a_constant_only():
    x = torch.randn(1, 8, 5, 5)
    change = ResidualBlock(8)(x) - x
    torch.testing.assert_close(change, change.mean((0, 2, 3), keepdim=True).expand_as(change))


def test_latents_are_normalised_by_the_stored_statistics():
    plain, image = tiny_vae(), torch.randn(1, 3, 16, 16)
    scaled = tiny_vae(latents_mean=[1.0, 0.0, 0.0, 0.0], latents_std=[2.0, 1.0, 1.0, 1.0])
    raw = plain.encode(image).latents
    got = encode_latents(scaled, image)
    torch.testing.assert_close(got[:, 0], (raw[:, 0] - 1) / 2)
    torch.testing.assert_close(got[:, 1:], raw[:, 1:])
    torch.testing.assert_close(decode_latents(scaled, got), plain(image))


def test_stable_diffusion_vae_uses_its_scaling_factor():
    vae = tiny_kl()
    image = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(encode_latents(vae, image), vae.encode(image).latent_dist.mean * 0.5)
    assert downscale_factor(vae) == 2


def test_saved_vae_loads_as_its_own_class(tmp_path):
    vae = tiny_vae(latents_mean=[0.0] * 4, latents_std=[2.0] * 4)
    vae.save_pretrained(tmp_path)
    again, image = load_vae(tmp_path), torch.randn(1, 3, 16, 16)
    assert isinstance(again, CompactAutoencoder)
    torch.testing.assert_close(encode_latents(again, image), encode_latents(vae, image))


def test_another_class_is_refused_by_name(tmp_path):
    FaceEncoder(channels=(8, 8), blocks=1).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds a FaceEncoder, expected one of AutoencoderKL"):
        load_vae(tmp_path)


def test_pickled_weights_are_not_read(tmp_path):
    tiny_vae().save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        load_vae(tmp_path)


def test_truncated_weights_are_refused(tmp_path):
    tiny_vae().save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        load_vae(tmp_path)


def test_face_encoder_tokens_and_copy():
    torch.manual_seed(0)
    encoder = FaceEncoder(channels=(8, 8, 8), blocks=1, unshuffle=2, embedding_dim=12, input_px=32)
    face = torch.randn(2, 3, 64, 64)
    tokens = encoder(face)
    assert tokens.shape == (2, encoder.num_tokens, 12) == (2, 16, 12)
    features = encoder.encode(encoder.prepare(face), "lq")
    torch.testing.assert_close(tokens[:, 5], features[:, :, 1, 1])  # row by row, four tokens a row
    assert (encoder(face, "hq") - tokens).abs().max() > 1e-4
    copy = encoder.without_decoders()
    torch.testing.assert_close(copy(face), tokens)
    assert not copy.decoders
    assert encoder.decode(features, "hq").shape == (2, 3, 32, 32)
    torch.testing.assert_close(as_tokens(features), tokens)


def test_encoder_features_of_both_kinds_of_vae():
    image = torch.randn(1, 3, 16, 16)
    assert [f.shape[1:] for f in encoder_features(tiny_vae(), image)] == [(8, 8, 8), (8, 4, 4)]
    levels = encoder_features(tiny_kl(), image)
    assert [f.shape[1:] for f in levels] == [(8, 8, 8), (8, 8, 8)]
    hooked = []
    vae = tiny_kl()
    vae.encoder.down_blocks[1].register_forward_hook(lambda module, args, output: hooked.append(output))
    vae.encode(image)
    torch.testing.assert_close(encoder_features(vae, image)[1], hooked[0])
