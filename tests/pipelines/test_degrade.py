"""`FaceDegrader`, with a tiny real network that has both modes."""

import pytest
import torch

from flipnet.models.mode_decoder import ModeDecoder
from flipnet.pipelines.degrade import FaceDegrader
from flipnet.pipelines.pipeline import CODE_JITTER
from flipnet.pipelines.restore import FaceRestorer
from flipnet.types import FlipnetError, Mode, Restorer
from two_modes import two_mode_pipeline


@pytest.fixture(scope="module")
def pipeline():
    return two_mode_pipeline()


@pytest.fixture(scope="module")
def degrader(pipeline):
    return FaceDegrader(pipeline, phi=1.0, steps=2, model_name="tiny")


def faces(count=2, seed=0):
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_contract(degrader):
    hq = faces()
    lq = degrader(hq, [1, 2])
    assert (lq.shape, lq.dtype, lq.device.type) == (hq.shape, torch.float32, "cpu")
    assert lq.abs().max() <= 1
    # The protocol of whatever maps aligned faces, so that every caller can take either.
    as_restorer: Restorer = degrader
    assert as_restorer.native_size_px == 64


def test_same_seed_same_result_other_seed_another_variant(degrader):
    hq = faces(1).expand(2, -1, -1, -1)
    first, second = degrader(hq, [5, 6])
    assert torch.equal(degrader(hq, [5, 6])[0], first)
    assert (first - second).abs().mean() > 0.01


def test_result_does_not_depend_on_its_batch(degrader):
    together = degrader(faces(3), [7, 8, 9])
    alone = torch.cat([degrader(faces(3)[i : i + 1], [7 + i]) for i in range(3)])
    torch.testing.assert_close(alone, together, atol=2 / 255, rtol=0)


def test_the_modes_are_told_apart_and_leave_each_other_alone(pipeline, degrader):
    restorer = FaceRestorer(pipeline, phi=1.0, steps=2, model_name="tiny")
    before = degrader(faces(), [1, 2])
    restored = restorer(faces(), [1, 2])
    assert (restored - before).abs().mean() > 1e-3
    assert torch.equal(degrader(faces(), [1, 2]), before)


def test_the_face_embedding_has_no_say(degrader):
    before = degrader(faces(), [1, 2])
    encoder = degrader.pipeline.network.face_encoder
    kept = {key: value.clone() for key, value in encoder.state_dict().items()}
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1.0)
    after = degrader(faces(), [1, 2])
    encoder.load_state_dict(kept)
    assert torch.equal(after, before)


def test_phi_changes_the_result_and_zero_ignores_the_face(pipeline):
    degraders = {phi: FaceDegrader(pipeline, phi=phi, steps=2, model_name="tiny") for phi in (0.0, 1.0, 2.0)}
    one, other = faces(1), faces(1, seed=3)
    at = {phi: degrader(one, [1]) for phi, degrader in degraders.items()}
    assert (at[2.0] - at[1.0]).abs().mean() > 1e-3
    torch.testing.assert_close(degraders[0.0](other, [1]), at[0.0], atol=1e-5, rtol=0)
    assert (degraders[1.0](other, [1]) - at[1.0]).abs().mean() > 1e-3


def test_from_checkpoint(tmp_path, pipeline, degrader):
    pipeline.save_pretrained(tmp_path / "model")
    loaded = FaceDegrader.from_checkpoint(tmp_path / "model", steps=2, device="cpu")
    loaded.pipeline.precision = "no"
    assert isinstance(loaded, FaceDegrader)
    assert (loaded.mode, loaded.phi, loaded.steps) == (Mode.DEGRADATION, 1.0, 2)
    assert (loaded.model_name, loaded.device) == (str(tmp_path / "model"), "cpu")
    torch.testing.assert_close(loaded(faces(), [1, 2]), degrader(faces(), [1, 2]), atol=1e-4, rtol=0)


def test_checkpoint_without_the_mode_is_named(tiny_checkpoint):
    with pytest.raises(FlipnetError) as raised:
        FaceDegrader.from_checkpoint(tiny_checkpoint, device="cpu")
    assert str(raised.value) == (
        f"{tiny_checkpoint}: This model has no mode 'degradation'; it has restoration."
    )


@pytest.mark.parametrize(("options", "words"), [({"phi": -0.1}, "phi"), ({"steps": 0}, "steps")])
def test_bad_options_are_named(pipeline, options, words):
    with pytest.raises(FlipnetError, match=f"{words} must be at least"):
        FaceDegrader(pipeline, **({"phi": 1.0, "steps": 2} | options), model_name="tiny")


@pytest.fixture(scope="module")
def coded_pipeline():
    """Modes as in `pipeline`, degradation with codes that do something, in its decoder too."""
    pipeline = two_mode_pipeline()
    network = pipeline.network
    network.add_code("degradation", 2)
    torch.nn.init.normal_(network.tau("degradation").code_out.weight, std=0.3)
    network.tau("degradation").set_codes(torch.randn(50, 2))
    decoder = ModeDecoder.from_vae(pipeline.vae, noise=True).with_code(2)
    for parameter in (*decoder.noise_strengths, *decoder.code_gains.parameters()):
        torch.nn.init.normal_(parameter, std=0.1)
    pipeline.decoders["degradation"] = decoder.eval().requires_grad_(False)
    return pipeline


def seeds(*numbers):
    return [torch.Generator().manual_seed(number) for number in numbers]


def test_codes_are_drawn_from_real_ones_by_each_images_seed(coded_pipeline):
    coded_pipeline.network.activate("degradation")
    codes = coded_pipeline.draw_codes(seeds(*range(200)))
    assert torch.equal(coded_pipeline.draw_codes(seeds(7))[0], codes[7])
    bank = coded_pipeline.network.tau("degradation").codes
    nearest = (codes[:, None] - bank).norm(dim=2).min(1)
    assert nearest.values.max() < 6 * CODE_JITTER
    assert len(nearest.indices.unique()) > 35
    # All of 200 differ, also those of one example.
    assert len(codes.unique(dim=0)) == 200


def test_a_mode_without_codes_draws_nothing(pipeline, coded_pipeline):
    (generator,) = seeds(3)
    state = generator.get_state()
    for each, mode in ((pipeline, "degradation"), (coded_pipeline, "restoration")):
        each.network.activate(mode)
        assert each.draw_codes([generator]) is None
    assert torch.equal(generator.get_state(), state)


def test_codes_change_the_picture_and_only_with_the_seed(coded_pipeline):
    degrader = FaceDegrader(coded_pipeline, phi=1.0, steps=2, model_name="tiny")
    hq = faces(1)
    assert torch.equal(degrader(hq, [5]), degrader(hq, [5]))
    latents, features = coded_pipeline.encode(hq)
    by_code = [
        coded_pipeline.decode(
            coded_pipeline.denoise(latents, hq, seeds(5), 2, codes=codes), features, seeds(5), codes=codes
        )
        for codes in (torch.tensor([[1.0, -1.0]]), torch.tensor([[-1.0, 1.0]]))
    ]
    assert (by_code[0] - by_code[1]).abs().mean() > 1e-3


def test_a_checkpoint_with_codes_round_trips_and_its_decoder_must_fit(tmp_path, coded_pipeline):
    want = FaceDegrader(coded_pipeline, phi=1.0, steps=2, model_name="tiny")(faces(), [1, 2])
    coded_pipeline.save_pretrained(tmp_path / "model")
    loaded = FaceDegrader.from_checkpoint(tmp_path / "model", steps=2, device="cpu")
    loaded.pipeline.precision = "no"
    torch.testing.assert_close(loaded(faces(), [1, 2]), want, atol=1e-4, rtol=0)
    coded_pipeline.decoders["restoration"] = coded_pipeline.decoders["degradation"]
    coded_pipeline.save_pretrained(tmp_path / "wrong")
    del coded_pipeline.decoders["restoration"]
    with pytest.raises(FlipnetError, match="decoders/restoration: takes codes that its mode does not have"):
        FaceDegrader.from_checkpoint(tmp_path / "wrong", device="cpu")
