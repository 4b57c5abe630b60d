from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter


@pytest.fixture(scope="session")
def face_folder(tmp_path_factory) -> Path:
    """Six smooth random 64x64 pictures named like training faces."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    for index in range(6):
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
        small.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"synthetic-any-{index:04d}.png")
    return folder


@pytest.fixture
def write_recipe(tmp_path, face_folder):
    """Write a tiny recipe of a stage and return its path."""

    def write(stage: str, table: str, *, steps: int = 2, **run: object) -> Path:
        settings = {
            "precision": '"no"',
            "tracker": '"tensorboard"',
            "validate_every": 100,
            "log_every": 1,
            **run,
        }
        path = tmp_path / f"{stage}.toml"
        path.write_text(
            f'stage = "{stage}"\n'
            f'[data]\ntrain = ["{face_folder}"]\nval = ["{face_folder}"]\nsize_px = 64\n'
            f'cache = "{tmp_path}/cache"\n'
            f"[optim]\nsteps = {steps}\nbatch_size = 2\nlearning_rate = 1e-3\nwarmup_steps = 1\nema_decay = 0.5\n"
            "[run]\n"
            + "".join(f"{key} = {value}\n" for key, value in settings.items())
            + f"[{stage}]\n{table}\n"
        )
        return path

    return write


@pytest.fixture
def pair_shard(tmp_path, face_folder):
    """A tar of clean/degraded pairs: each picture and a blurred copy of it."""
    path = tmp_path / "pairs.tar"
    with tarfile.open(path, "w") as tar:
        for file in sorted(face_folder.iterdir()):
            with Image.open(file) as image:
                pictures = {"hq": image.copy(), "lq": image.filter(ImageFilter.GaussianBlur(2))}
            for role, picture in pictures.items():
                content = io.BytesIO()
                picture.save(content, "webp", lossless=True)
                info = tarfile.TarInfo(f"{file.stem}.{role}.webp")
                info.size = len(content.getvalue())
                tar.addfile(info, io.BytesIO(content.getvalue()))
    return path
