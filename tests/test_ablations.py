"""benchmarks/ablations.py at tiny size: what its runs share, and what they differ in."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flipnet.evaluation.catalogue import choose
from flipnet.types import FlipnetError
from two_modes import two_mode_pipeline

ROOT = Path(__file__).parent.parent


@pytest.fixture
def ablations(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("ablations")


@pytest.fixture
def runs(ablations):
    """The module of its single runs."""
    return importlib.import_module("ablation_runs")


@pytest.fixture
def report(ablations):
    """The module of its tables and figure."""
    return importlib.import_module("ablation_report")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A tiny pipeline with both modes; native size 64."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    two_mode_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    """Six smooth random pictures."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    for index in range(6):
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
        small.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"face-{index}.png")
    return folder


@pytest.fixture
def command(base, faces, tmp_path) -> list[str]:
    """Options of a tiny run."""
    text = f"runs --train {faces} --val {faces} --model {base} -o {tmp_path}/out --cache {tmp_path}/cache"
    text += f" --recipe {ROOT}/recipes/compact-restoration.toml --samples 4 --faces 4 --limit 2"
    text += f" --face-encoder-without-association {base}/face_encoder"
    changes = ("data.size_px=64", "optim.batch_size=4", 'run.precision="no"', "restoration.lora_rank=4")
    changes += ("restoration.image_crop_latents=4", "data.source_weights={}")
    return [*text.split(), *(word for change in changes for word in ("--set", change))]


def identity_is_missing() -> bool:
    """Whether dlib or its weights are not installed."""
    from flipnet.faces.identity import IdentityNetwork, IdentityUnavailableError

    try:
        IdentityNetwork()
    except IdentityUnavailableError:
        return True
    return False


needs_dlib = pytest.mark.skipif(identity_is_missing(), reason="dlib or its weights are not installed")


@needs_dlib
def test_every_variant_trains_is_measured_and_is_not_repeated(ablations, command, tmp_path, capsys):
    command += ["--paths", "hubs"]
    ablations.main(command)
    out = tmp_path / "out"
    table = capsys.readouterr().out
    assert table.count("| BFR embedding (reference) |") == 1
    assert table.count("| +O/F |") == 2  # values and differences
    done = json.loads((out / "ablations.json").read_text())
    assert len(done) == 1 + 5
    for run in done.values():
        assert all(len(values) == 2 for found in run["scores"].values() for values in found.values())
    with Image.open(out / "ablations.png") as picture:
        assert picture.width > 1000

    # The variants see the same noise, but each restores in its own way.
    losses = {key: tuple(run["scores"]["medium"]["ldm"]) for key, run in done.items() if key != "input"}
    assert len(set(losses.values())) >= 4  # the tiny encoder is the same with and without association

    before = {file: file.stat().st_mtime_ns for file in out.rglob("log.jsonl")}
    ablations.main(command)
    assert len(before) == 5
    assert before == {file: file.stat().st_mtime_ns for file in out.rglob("log.jsonl")}

    # Numbers of one training are not passed off as those of another.
    with pytest.raises(FlipnetError, match="other options"):
        ablations.main([*command, "--faces", "5"])


def test_the_base_stays_frozen_and_only_the_mode_is_kept(ablations, runs, command, base, tmp_path):
    setting = ablations.setting_of(ablations.parse(command), 0)
    runs.train_variant(setting, runs.VARIANTS["reference"], tmp_path / "run", channels=True)
    kept = [file.name for file in (tmp_path / "run/final").iterdir()]
    assert kept == ["restoration.safetensors"]
    bare = runs.bare_pipeline(setting, runs.VARIANTS["reference"], channels=True)
    done = runs.trained(setting, runs.VARIANTS["reference"], tmp_path / "run", channels=True)
    before = {key: value for key, value in bare.unet.state_dict().items()}
    after = {key.replace(".base_layer.", "."): value for key, value in done.unet.state_dict().items()}
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    mode = {key: value for key, value in after.items() if "hub_out" in key or "lora_B" in key}
    assert all(value.abs().max() > 0 for key, value in mode.items() if key.endswith("weight"))


def test_without_channels_the_base_predicts_what_it_does_with_empty_channels(ablations, runs, command):
    setting = ablations.setting_of(ablations.parse(command), 0)
    full = runs.bare_pipeline(setting, runs.VARIANTS["reference"], channels=True).unet
    cut = runs.bare_pipeline(setting, runs.VARIANTS["reference"], channels=False).unet
    latents, tokens = torch.randn(1, 4, 8, 8), torch.randn(1, 16, 16)
    empty = torch.cat([latents, torch.zeros_like(latents)], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(cut(latents, 500, tokens).sample, full(empty, 500, tokens).sample)


def test_a_share_of_the_same_draws_is_offline(runs):
    class Numbered:
        def __init__(self, value):
            self.value = value

        def __getitem__(self, item):
            return {"hq_latents": torch.tensor([*item]), "lq": self.value, "embedding": self.value}

    mixed = runs.Samples(Numbered("online"), Numbered("offline"), 0.3, embeds=False)
    items = [mixed[seed % 7, seed] for seed in range(1000)]
    assert [item["hq_latents"].tolist() for item in items] == [[seed % 7, seed] for seed in range(1000)]
    # Four standard deviations of a binomial around its mean.
    assert abs(sum(item["lq"] == "offline" for item in items) - 300) < 58
    assert all("embedding" not in item for item in items)


def test_an_unassociated_encoder_that_is_not_given_is_asked_for(ablations, runs, command):
    place = command.index("--face-encoder-without-association")
    setting = ablations.setting_of(ablations.parse(command[:place] + command[place + 2 :]), 0)
    with pytest.raises(FlipnetError, match="--face-encoder-without-association"):
        runs.bare_pipeline(setting, runs.VARIANTS["no-association"], channels=False)


def test_metrics_are_those_of_the_catalogue_and_keep_their_direction(report):
    names = [name for name in report.METRICS if name != "ldm"]
    found, _ = choose(names)
    assert {metric.name: metric.better for metric in found} == {
        name: report.METRICS[name][1] for name in names
    }


def test_differences_are_paired_and_gradient_energy_counts_from_one(report):
    def scores(values):
        return {severity: {"gradient_energy_ratio": values} for severity in report.SEVERITIES}

    found, verdict = report.difference(scores([0.9, 1.1]), scores([0.5, 1.5]), "gradient_energy_ratio")
    assert found.mean == pytest.approx(-0.4)
    assert verdict == "better"


@needs_dlib
def test_phi_writes_its_table_and_strip(ablations, base, faces, tmp_path, capsys):
    ablations.main(f"phi --val {faces} --model {base} --limit 1 -o {tmp_path}".split())
    rows = capsys.readouterr().out.splitlines()
    assert [row.split("|")[1].strip() for row in rows[2:]] == [
        "input", "φ = 0", "φ = 0.5", "φ = 1", "φ = 1.5", "φ = 2",
    ]  # fmt: skip
    with Image.open(tmp_path / "phi.png") as picture:
        assert picture.width == 7 * ablations.PORTRAIT_PX
