"""Degradation training with codes, end to end at tiny size: the mode, its decoder, and going on."""

import torch
from safetensors.torch import load_file

from flipnet.config import load_recipe
from flipnet.data.degradation_code import NAMES
from flipnet.pipelines.pipeline import FlipnetPipeline
from flipnet.training import degradation, run_recipe
from flipnet.training.budget import count_budget
from two_modes import two_mode_pipeline

MODE = """base = "{base}"
crop_px = 64
code = true
code_bank = 20
storage = {{ small_share = 0.8, gray_share = 0.4 }}
pairs = [{{ layout = "shards", path = "{shard}" }}]
val_pairs = [{{ layout = "shards", path = "{shard}" }}]
"""
DECODER = """base = "{base}"
mode = "degradation"
crop_px = 48
fidelity_px = 8
storage = {{ small_share = 0.8 }}
pairs = [{{ layout = "shards", path = "{shard}" }}]
val_pairs = [{{ layout = "shards", path = "{shard}" }}]
"""
FILE = "final/modes/degradation.safetensors"


def test_a_trained_mode_is_given_codes_its_decoder_follows_and_going_on_keeps_their_meaning(
    tmp_path, write_recipe, pair_shard
):
    base = tmp_path / "base"
    two_mode_pipeline().save_pretrained(base)
    recipe = write_recipe("degradation", MODE.format(base=base, shard=pair_shard))
    assert run_recipe(recipe, output=tmp_path / "first")["val_ldm"] > 0
    first = load_file(tmp_path / "first" / FILE)
    assert first["tau.codes"].shape == (20, len(NAMES))
    assert first["tau.codes"].mean(0).abs().max() < 1e-4
    assert first["tau.code_out.weight"].abs().max() > 0
    assert load_file(base / "modes/degradation.safetensors").keys() < first.keys()

    table = DECODER.format(base=tmp_path / "first/final", shard=pair_shard)
    run_recipe(write_recipe("decoder", table, steps=4), output=tmp_path / "decoder")
    decoder = FlipnetPipeline.from_pretrained(tmp_path / "decoder/final").decoders["degradation"]
    assert [gain.in_features for gain in decoder.code_gains] == [len(NAMES)] * 3
    assert all(gain.weight.abs().sum() > 0 for gain in decoder.code_gains)

    recipe = write_recipe("degradation", MODE.format(base=tmp_path / "decoder/final", shard=pair_shard))
    tau = degradation.build(load_recipe(recipe, ("run.seed=5",))).objective.network.tau("degradation")
    assert torch.equal(tau.code_mean, first["tau.code_mean"])
    assert torch.equal(tau.code_std, first["tau.code_std"])
    assert not torch.equal(tau.codes, first["tau.codes"])


def test_codes_change_nothing_before_they_are_learnt_and_come_from_the_seed(
    tmp_path, write_recipe, pair_shard
):
    base = tmp_path / "base"
    two_mode_pipeline().save_pretrained(base)
    path = write_recipe("degradation", MODE.format(base=base, shard=pair_shard))
    plain, coded, again = (
        degradation.build(load_recipe(path, overrides)) for overrides in (("degradation.code=false",), (), ())
    )
    assert plain.validate() == coded.validate()
    banks = [stage.objective.network.tau("degradation").codes for stage in (coded, again)]
    assert torch.equal(*banks)
    other = degradation.build(load_recipe(path, ("run.seed=1",)))
    assert not torch.equal(other.objective.network.tau("degradation").codes, banks[0])


def test_the_budget_counts_the_code(write_recipe, tiny_checkpoint, pair_shard):
    path = write_recipe("degradation", MODE.format(base=tiny_checkpoint, shard=pair_shard))
    trainable = [
        sum(part.trainable for part in count_budget(load_recipe(path, overrides)).parts)
        for overrides in ((), ("degradation.code=false",))
    ]
    time_dim = 4 * 16  # diffusers: four times the first block's channels
    assert trainable[0] - trainable[1] == (len(NAMES) + 1 + time_dim + 1) * time_dim
