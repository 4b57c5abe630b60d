import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from flipnet.models.adapter import Adapter
from flipnet.models.boosthub import hub_processors
from flipnet.models.face_encoder import FaceEncoder
from flipnet.models.flipnet import Flipnet, load_mode, mode_state_dict, save_base_unet, save_mode
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.types import FlipnetError, Mode, assign_roles
from tiny import tiny_pipeline, tiny_unet


def tiny_encoder():
    return FaceEncoder(channels=(8, 8, 8), blocks=1, unshuffle=2, embedding_dim=12, input_px=32)


def tiny_network(*, concatenates=True):
    torch.manual_seed(0)
    return Flipnet(tiny_unet(concatenates=concatenates), tiny_encoder()).eval()


def predict(network, phi=1.0, seed=0, code=None):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    embedding = torch.randn(2, 16, 12, generator=generator) if network.adapters[network.mode].embeds else None
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(99))
    with torch.no_grad():
        return network(noisy, 500, network.condition(latents, embedding, phi=phi, code=code))


def test_roles_flip_with_the_mode():
    restoration, degradation = (assign_roles("hq", "lq", mode) for mode in Mode)
    assert (restoration.target, restoration.condition) == ("hq", "lq")
    assert (degradation.target, degradation.condition) == ("lq", "hq")


def test_fresh_mode_is_no_change_to_the_base():
    network = tiny_network(concatenates=False)
    noisy, context = torch.randn(2, 4, 8, 8), torch.zeros(2, 16, 16)
    with torch.no_grad():
        before = network.unet(noisy, 500, context).sample
        network.add_mode("restoration", lora_rank=4, rotary=True, context_tokens=16)
        condition = network.condition(torch.randn(2, 4, 8, 8), torch.randn(2, 16, 12))
        features_only = condition.__class__(condition.features, context, condition.latents)
        after = network(noisy, 500, features_only)
    torch.testing.assert_close(after, before)


def test_phi_zero_is_pure_generation(pipeline):
    network = pipeline.network
    assert torch.equal(predict(network, 0.0, seed=0), predict(network, 0.0, seed=1))
    assert (predict(network, 1.0, seed=0) - predict(network, 1.0, seed=1)).abs().max() > 1e-3


def test_phi_per_sample_equals_phi_for_all(pipeline):
    network = pipeline.network
    latents, embedding, noisy = torch.randn(2, 4, 8, 8), torch.randn(2, 16, 12), torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        single = network(noisy, 500, network.condition(latents, embedding, phi=0.5))
        batched = network(noisy, 500, network.condition(latents, embedding, phi=torch.tensor([0.5, 0.5])))
    torch.testing.assert_close(single, batched)


def test_withheld_condition_is_not_seen(pipeline):
    network = pipeline.network
    noisy, keep = torch.randn(2, 4, 8, 8), torch.tensor([True, False])
    with torch.no_grad():
        out = [
            network(
                noisy,
                500,
                network.condition(latents, embedding, keep=keep, concat_scale=keep.view(2, 1, 1, 1).float()),
            )
            for latents, embedding in ((torch.randn(2, 4, 8, 8), torch.randn(2, 16, 12)) for _ in range(2))
        ]
    assert (out[0][0] - out[1][0]).abs().max() > 1e-3
    assert torch.equal(out[0][1], out[1][1])


def test_modes_do_not_touch_each_other(pipeline):
    network = pipeline.network
    before = predict(network)
    network.add_mode("degradation", lora_rank=4, rotary=True, context_tokens=16)
    for parameter in network.mode_parameters("degradation"):
        torch.nn.init.normal_(parameter, std=0.2)
    degraded = predict(network)
    network.activate("restoration")
    assert torch.equal(predict(network), before)
    assert (degraded - before).abs().max() > 1e-3


def test_mode_without_embedding_and_with_convolutions_round_trips(tmp_path, pipeline):
    network = pipeline.network
    network.add_mode(
        "degradation", lora_rank=4, rotary=True, context_tokens=16, embeds=False, lora_convolutions=True
    )
    assert network.embed(torch.zeros(1, 3, 64, 64)) is None
    keys = mode_state_dict(network, "degradation").keys()
    assert any("conv1.lora_A" in key for key in keys)
    assert [key for key in keys if key.startswith("tau.")] == ["tau.null"]
    for parameter in network.mode_parameters("degradation"):
        torch.nn.init.normal_(parameter, std=0.1)
    want = predict(network)
    pipeline.save_pretrained(tmp_path / "two")
    again = FlipnetPipeline.from_pretrained(tmp_path / "two").network
    again.activate("degradation")
    torch.testing.assert_close(predict(again), want)
    again.activate("restoration")
    network.activate("restoration")
    torch.testing.assert_close(predict(again), predict(network))


def test_unknown_mode_is_named(pipeline):
    with pytest.raises(FlipnetError, match="no mode 'degradation'; it has restoration"):
        pipeline.network.activate("degradation")


def test_gradients_reach_every_part_of_a_mode_and_nothing_else(pipeline):
    network = pipeline.network
    ours = network.mode_parameters("restoration")
    for parameter in ours:
        parameter.requires_grad_(True)
    condition = network.condition(
        torch.randn(2, 4, 8, 8), torch.randn(2, 16, 12), keep=torch.tensor([True, False]), gradient=False
    )
    network(torch.randn(2, 4, 8, 8), 500, condition).square().mean().backward()
    without = [p for p in ours if p.grad is None or p.grad.abs().sum() == 0]
    # Softmax ignores what is the same for every key, and nothing else may be missing.
    names = {id(p): n for n, p in network.named_parameters()}
    assert all("to_k.lora" in names[id(p)] or "hub_k.bias" in names[id(p)] for p in without), [
        names[id(p)] for p in without
    ]
    rest = {id(p) for p in network.parameters()} - {id(p) for p in ours}
    assert all(p.grad is None for p in network.parameters() if id(p) in rest)


def test_mode_file_round_trip(tmp_path, pipeline):
    save_mode(pipeline.network, "restoration", tmp_path / "mode.safetensors")
    again = tiny_network()
    again.unet.load_state_dict(tiny_pipeline().unet.state_dict(), strict=False)
    load_mode(again, "restoration", tmp_path / "mode.safetensors")
    theirs, ours = mode_state_dict(again, "restoration"), mode_state_dict(pipeline.network, "restoration")
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[key], ours[key]) for key in ours)
    assert {key.partition(".")[0] for key in ours} == {"lora", "hub", "tau"}


def test_mode_file_for_another_base_is_refused(tmp_path, pipeline):
    save_mode(pipeline.network, "restoration", tmp_path / "mode.safetensors")
    unet = UNet2DConditionModel.from_config({**tiny_unet().config, "block_out_channels": (16, 64)})
    with pytest.raises(FlipnetError, match=r"mode\.safetensors: does not fit its base"):
        load_mode(Flipnet(unet, tiny_encoder()), "restoration", tmp_path / "mode.safetensors")


def test_saved_base_holds_the_base_alone(tmp_path, pipeline):
    save_base_unet(pipeline.unet, tmp_path)
    base = UNet2DConditionModel.from_pretrained(tmp_path)
    torch.manual_seed(0)
    assert base.state_dict().keys() == tiny_unet().state_dict().keys()
    torch.testing.assert_close(base.conv_in.weight, pipeline.unet.conv_in.weight)
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    torch.testing.assert_close(
        base.get_submodule(name).weight, pipeline.unet.get_submodule(name).base_layer.weight
    )


def test_adapter_resamples_tokens():
    adapter = Adapter(num_tokens=16, embedding_dim=12, context_tokens=77, context_dim=24)
    assert adapter(torch.randn(3, 16, 12)).shape == adapter.null_tokens(3).shape == (3, 77, 24)


STABLE_DIFFUSION_21 = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}


def test_stable_diffusion_21_size():
    with torch.device("meta"):
        unet = UNet2DConditionModel(**STABLE_DIFFUSION_21)
        network = Flipnet(unet, FaceEncoder(embedding_dim=256))
        assert sum(p.numel() for p in unet.parameters()) == 865_910_724  # the published checkpoint's count
        network.requires_grad_(False)
        network.add_mode("restoration", lora_rank=64, rotary=False, context_tokens=77)
        network.requires_grad_(False)
        for parameter in network.mode_parameters("restoration"):
            parameter.requires_grad_(True)
        latents = torch.zeros(1, 4, 64, 64)
        condition = network.condition(latents, torch.zeros(1, 64, 256))
        assert network(latents, torch.tensor([10]), condition).shape == (1, 4, 64, 64)
    assert condition.tokens.shape == (1, 77, 1024)
    assert condition.latents is None

    # 16 transformer blocks: five of 320, five of 640, six of 1280 channels (mid block included).
    widths = [320] * 5 + [640] * 5 + [1280] * 6
    assert sorted(p.hubs["restoration"].hub_q.in_features for p in hub_processors(unet).values()) == widths
    lora = sum(64 * (4 * 2 * c) + 64 * (2 * 2 * c + 2 * (1024 + c)) for c in widths)
    hubs = sum(4 * c * c + c for c in widths)
    tau = sum(p.numel() for p in network.adapters["restoration"].parameters())
    trainable = {n: p.numel() for n, p in network.named_parameters() if p.requires_grad}
    assert sum(trainable.values()) == lora + hubs + tau
    assert all("lora_" in n or ".hubs." in n or n.startswith("adapters.") for n in trainable)


def coded(pipeline):
    """A degradation mode with codes of 3 numbers, five of which are known, whose weights do something."""
    network = pipeline.network
    network.add_mode("degradation", lora_rank=4, rotary=True, context_tokens=16, embeds=False, code_dim=3)
    for parameter in network.mode_parameters("degradation"):
        torch.nn.init.normal_(parameter, std=0.1)
    network.tau("degradation").set_codes(torch.randn(5, 3) * torch.tensor([1.0, 5.0, 0.0]) + 2)
    return network


def test_a_code_changes_nothing_before_it_is_learnt_and_the_prediction_after(pipeline):
    network = pipeline.network
    before = predict(network)
    network.add_code("restoration", 3)
    code = torch.tensor([[1.0, -1.0, 0.5], [0.0, 2.0, 0.0]])
    assert torch.equal(predict(network, code=code), before)
    torch.nn.init.normal_(network.tau("restoration").code_out.weight, std=0.5)
    first, second = predict(network, code=code), predict(network, code=code.flip(0))
    assert (first - second).abs().max() > 1e-3
    # Sample by sample, and the hook is at rest between predictions.
    assert torch.equal(predict(network, code=code[:1].expand(2, -1))[0], first[0])
    emb = network.unet.time_embedding(torch.zeros(1, 16))
    torch.testing.assert_close(network.unet.time_embedding.forward(torch.zeros(1, 16)), emb)


def test_the_condition_pass_does_not_see_the_code(pipeline):
    network = coded(pipeline)
    latents = torch.randn(1, 4, 8, 8)
    recorded = [
        network.condition(latents, None, code=code).features for code in (torch.zeros(1, 3), torch.ones(1, 3))
    ]
    assert recorded[0].states
    for layer, state in recorded[0].states.items():
        assert torch.equal(state, recorded[1].states[layer])


def test_codes_are_for_modes_that_have_them(pipeline):
    with pytest.raises(ValueError, match="'restoration' takes codes of 0 numbers"):
        predict(pipeline.network, code=torch.zeros(2, 3))
    coded(pipeline)
    with pytest.raises(ValueError, match="'degradation' takes codes of 3 numbers, got None"):
        predict(pipeline.network)


def test_the_first_codes_say_what_normal_is(pipeline):
    tau = coded(pipeline).tau("degradation")
    torch.testing.assert_close(tau.codes.mean(0), torch.zeros(3))
    torch.testing.assert_close(tau.codes.std(0)[:2], torch.ones(2))
    assert tau.codes[:, 2].abs().max() < 1e-6  # what never varies does not explode
    torch.testing.assert_close(tau.normalised(tau.code_mean[None]), torch.zeros(1, 3))
    mean = tau.code_mean.clone()
    tau.set_codes(torch.zeros(2, 3))
    assert torch.equal(tau.code_mean, mean)
    torch.testing.assert_close(tau.codes, (-mean / tau.code_std).expand(2, -1))


def test_a_mode_with_codes_round_trips(tmp_path, pipeline):
    network = coded(pipeline)
    want = predict(network, code=network.tau("degradation").codes[:2])
    pipeline.save_pretrained(tmp_path / "two")
    again = FlipnetPipeline.from_pretrained(tmp_path / "two").network
    again.activate("degradation")
    assert torch.equal(again.tau("degradation").codes, network.tau("degradation").codes)
    torch.testing.assert_close(predict(again, code=again.tau("degradation").codes[:2]), want)
    assert (again.code_dim("restoration"), again.code_dim("degradation"), again.code_dim("no")) == (0, 3, 0)


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("tau.codes", (0, 3)),
        ("tau.codes", (5, 4)),
        ("tau.codes", (15,)),
        ("tau.code_in.weight", (64, 2)),
        ("tau.code_in.weight", (63, 3)),
        ("tau.code_mean", (4,)),
    ],
)
def test_codes_of_other_sizes_are_refused(tmp_path, pipeline, key, shape):
    file = tmp_path / "mode.safetensors"
    save_mode(coded(pipeline), "degradation", file)
    rewrite(file, lambda metadata: metadata, **{key: torch.zeros(shape)})
    with pytest.raises(FlipnetError, match=r"mode\.safetensors: (its codes do not|does not fit)"):
        load_mode(tiny_network(), "degradation", file)


@pytest.mark.parametrize("code_dim", ["1000000000", "-3", "two", "0"])
def test_metadata_that_ask_for_other_codes_are_refused(tmp_path, pipeline, code_dim):
    file = tmp_path / "mode.safetensors"
    save_mode(coded(pipeline), "degradation", file)
    rewrite(file, lambda metadata: metadata | {"code_dim": code_dim})
    with pytest.raises(FlipnetError, match=r"mode\.safetensors: "):
        load_mode(tiny_network(), "degradation", file)


def test_a_mode_file_from_before_there_were_codes_has_none(tmp_path, pipeline):
    file = tmp_path / "mode.safetensors"
    save_mode(pipeline.network, "restoration", file)
    rewrite(file, lambda metadata: {key: metadata[key] for key in metadata if key != "code_dim"})
    again = tiny_network()
    load_mode(again, "restoration", file)
    assert again.code_dim("restoration") == 0
    assert (
        mode_state_dict(again, "restoration").keys()
        == mode_state_dict(pipeline.network, "restoration").keys()
    )


def rewrite(file, change, **tensors):
    """Put changed metadata and other tensors into a mode file."""
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    save_file(load_file(file) | tensors, file, change(metadata))
