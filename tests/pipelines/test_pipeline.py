import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from PIL import Image

from flipnet import checkpoints
from flipnet.checkpoints import CheckpointError
from flipnet.models.mode_decoder import ModeDecoder
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.pipelines.restore import FaceRestorer
from flipnet.pipelines.sampling import denoise, initial_noise
from flipnet.types import FlipnetError
from tiny import tiny_pipeline


def faces(count=2, seed=0):
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def restore(pipeline, images, *seeds, **options):
    return pipeline(images, generator=generators(*seeds), output_type="pt", **options).images


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_denoiser_is_followed_to_the_clean_latents(prediction):
    scheduler = DDIMScheduler(prediction_type=prediction, clip_sample=False, timestep_spacing="trailing")
    clean, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)

    def oracle(noisy, timestep):
        alpha = scheduler.alphas_cumprod[timestep]
        estimated = (noisy - alpha.sqrt() * clean) / (1 - alpha).sqrt()
        velocity = alpha.sqrt() * estimated - (1 - alpha).sqrt() * clean
        return {"epsilon": estimated, "v_prediction": velocity, "sample": clean}[prediction]

    torch.testing.assert_close(denoise(oracle, scheduler, noise, 5), clean, atol=1e-3, rtol=1e-3)


def test_schedulers_that_scale_their_input_work_too():
    scheduler = EulerDiscreteScheduler(prediction_type="epsilon")
    clean = torch.randn(1, 4, 8, 8)

    def oracle(scaled, timestep):
        sigma = sigmas[float(timestep)]
        return (scaled * (sigma**2 + 1) ** 0.5 - clean) / sigma

    probe = EulerDiscreteScheduler.from_config(scheduler.config)
    probe.set_timesteps(6)
    sigmas = dict(zip(probe.timesteps.tolist(), probe.sigmas.tolist(), strict=False))
    torch.testing.assert_close(
        denoise(oracle, scheduler, torch.randn(1, 4, 8, 8), 6), clean, atol=1e-3, rtol=1e-3
    )


def test_steps_are_counted():
    seen = []
    denoise(
        lambda x, t: x,
        DDIMScheduler(),
        torch.zeros(1, 1, 2, 2),
        3,
        on_step=lambda index, latents: seen.append(index),
    )
    assert seen == [0, 1, 2]


def test_noise_of_a_sample_does_not_depend_on_its_batch():
    both = initial_noise(generators(5, 6), (4, 2, 2), torch.device("cpu"))
    assert torch.equal(both[1:], initial_noise(generators(6), (4, 2, 2), torch.device("cpu")))


def test_round_trip_restores_the_same(tmp_path, pipeline):
    pipeline.save_pretrained(tmp_path / "model")
    again = FlipnetPipeline.from_pretrained(tmp_path / "model")
    again.precision = pipeline.precision = "no"
    torch.testing.assert_close(
        restore(again, faces(), 1, 2), restore(pipeline, faces(), 1, 2), atol=1e-4, rtol=0
    )
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "face_encoder",
        "model_index.json",
        "modes",
        "scheduler",
        "sha256.json",
        "unet",
        "vae",
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    again.save_pretrained(tmp_path / "again")
    assert not [p for p in (tmp_path / "again").rglob("*.json") if str(tmp_path) in p.read_text()]
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]


def test_half_precision_files_are_half_as_large_and_nearly_the_same(tmp_path, pipeline):
    pipeline.save_pretrained(tmp_path / "full")
    pipeline.save_pretrained(tmp_path / "half", dtype=torch.float16)
    sizes = {
        name: sum(p.stat().st_size for p in (tmp_path / name).rglob("*.safetensors"))
        for name in ("full", "half")
    }
    assert sizes["half"] < 0.62 * sizes["full"]  # headers are a good part of tiny files
    half = FlipnetPipeline.from_pretrained(tmp_path / "half")
    assert {p.dtype for p in half.network.parameters()} == {torch.float32}
    torch.testing.assert_close(
        restore(half, faces(), 1, 2), restore(pipeline, faces(), 1, 2), atol=0.02, rtol=0
    )


def test_same_seed_same_face_whatever_the_batch(pipeline):
    pipeline.precision = "no"
    both = restore(pipeline, faces(), 1, 2)
    torch.testing.assert_close(restore(pipeline, faces()[1:], 2), both[1:], atol=2 / 255, rtol=0)
    assert torch.equal(restore(pipeline, faces(), 1, 2), both)
    assert (restore(pipeline, faces(), 1, 3)[1] - both[1]).abs().max() > 1e-3


def test_a_single_step_starts_from_the_noises_mean_whatever_the_seed(pipeline):
    pipeline.precision = "no"
    one, other = (restore(pipeline, faces(1), seed, num_inference_steps=1) for seed in (2, 3))
    assert torch.equal(one, other)
    latents, features = pipeline.encode(faces(1))
    with torch.no_grad():
        condition = pipeline.network.condition(latents, pipeline.network.embed(faces(1)))
        made = denoise(
            lambda noisy, t: pipeline.network(noisy, t, condition),
            pipeline.scheduler,
            torch.zeros_like(latents),
            1,
        )
        expected = pipeline.decode(made, features)
    torch.testing.assert_close(one, expected.clamp(-1, 1))
    assert not torch.equal(*(restore(pipeline, faces(1), seed, num_inference_steps=2) for seed in (2, 3)))


def test_phi_changes_the_result(pipeline):
    out = {phi: restore(pipeline, faces(1), 1, phi=phi) for phi in (0.0, 1.0, 2.0)}
    assert (out[0.0] - out[1.0]).abs().mean() > 1e-3
    assert (out[2.0] - out[1.0]).abs().mean() > 1e-3


@pytest.mark.parametrize("given", ["pil", "array", "tensor"])
def test_input_and_output_types(pipeline, given):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    as_tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    image = {"pil": Image.fromarray(pixels[0]), "array": pixels, "tensor": as_tensor}[given]
    options = {"generator": torch.Generator().manual_seed(0)}
    picture = pipeline(image, **options).images[0]
    assert picture.size == (64, 64)
    options = {"generator": torch.Generator().manual_seed(0)}
    array = pipeline(image, output_type="np", **options).images
    assert array.shape == (1, 64, 64, 3)
    assert np.array_equal(np.asarray(picture), array[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phi": -1.0}, "phi >= 0"),
        ({"num_inference_steps": 0}, "at least one step"),
        ({"generator": [torch.Generator()] * 3}, "2 images but 3 generators"),
    ],
)
def test_bad_options(pipeline, options, message):
    with pytest.raises(ValueError, match=message):
        pipeline(faces(), **options)


def test_wrong_size(pipeline):
    with pytest.raises(ValueError, match="must be 64x64"):
        pipeline(torch.zeros(1, 3, 32, 32))


def test_restorer_follows_the_protocol(tiny_checkpoint):
    restorer = FaceRestorer.from_checkpoint(tiny_checkpoint, phi=0.5, steps=2, device="cpu")
    assert (restorer.native_size_px, restorer.phi, restorer.steps) == (64, 0.5, 2)
    out = restorer(faces(), [1, 2])
    assert out.shape == (2, 3, 64, 64)
    assert out.abs().max() <= 1
    assert restorer.model_name == str(tiny_checkpoint)


def test_unusable_device_is_named(tiny_checkpoint):
    with pytest.raises(FlipnetError, match="Device 'nonsense' cannot be used"):
        FaceRestorer.from_checkpoint(tiny_checkpoint, device="nonsense")


def test_unknown_model_names_the_bundled_ones():
    with pytest.raises(CheckpointError, match="Unknown model 'nothing'"):
        FlipnetPipeline.from_pretrained("nothing")


def test_folder_without_a_model(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no model_index\.json"):
        FlipnetPipeline.from_pretrained(tmp_path)


def test_missing_mode_file_is_named(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "model")
    (tmp_path / "model/modes/restoration.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"restoration\.safetensors: missing"):
        FlipnetPipeline.from_pretrained(tmp_path / "model")


def test_checksums_notice_one_changed_byte(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "model")
    checkpoints.verify(tmp_path / "model")
    file = tmp_path / "model/unet/diffusion_pytorch_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"unet/diffusion_pytorch_model\.safetensors: missing or damaged"
    ):
        checkpoints.verify(tmp_path / "model")


def test_index_that_is_not_json(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "model")
    (tmp_path / "model/model_index.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"model_index\.json: not valid JSON"):
        FlipnetPipeline.from_pretrained(tmp_path / "model")


def test_foreign_scheduler_is_refused(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "model")
    file = tmp_path / "model/scheduler/scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "_class_name": "Evil"}))
    with pytest.raises(CheckpointError, match="holds a Evil, expected one of DDIMScheduler"):
        FlipnetPipeline.from_pretrained(tmp_path / "model")


def test_a_modes_own_decoder_is_saved_loaded_and_used(tmp_path):
    pipeline = tiny_pipeline()
    pipeline.precision = "no"
    face = torch.rand(1, 3, 64, 64) * 2 - 1

    def restored(model, phi):
        return model(face, phi=phi, generator=torch.Generator().manual_seed(0), output_type="pt").images

    before = {phi: restored(pipeline, phi) for phi in (0.0, 1.0)}
    decoder = ModeDecoder.from_vae(pipeline.vae, fuses=True)
    torch.nn.init.normal_(decoder.fusions[-1].conv2.weight, std=0.1)
    pipeline.decoders["restoration"] = decoder
    pipeline.save_pretrained(tmp_path / "model")
    again = FlipnetPipeline.from_pretrained(tmp_path / "model")
    again.precision = "no"
    # Pure generation must not see the input through the decoder either.
    torch.testing.assert_close(restored(again, 0.0), before[0.0])
    assert not torch.allclose(restored(again, 1.0), before[1.0])
    torch.testing.assert_close(restored(again, 1.0), restored(pipeline, 1.0))
