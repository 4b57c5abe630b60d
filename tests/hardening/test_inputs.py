"""Every file of `hostile_pictures` through `flipnet restore`: the right picture or one clear sentence.

The network runs, but with blend 0, so a picture must come back to the bit. Each group is one run of the command
line over a folder per case; results are PNG and read back with Pillow or, for 16 bit, libpng.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import skimage.data
from command_line import Run, fingerprints, flipnet, is_one_sentence, report_of
from hostile_pictures import GROUPS, SIDE, STORED_AS, Case, cases, exif_block, tiff
from PIL import Image


@pytest.fixture(autouse=True)
def without_extras(monkeypatch):
    """As installed without extras; dlib's comparison of faces is most of a tiny photo's time."""
    monkeypatch.setitem(sys.modules, "dlib", None)


def restore_all(folder: Path, group: list[Case], checkpoint: Path) -> Run:
    for index, case in enumerate(group):
        path = folder / "in" / f"{index:03}" / case.name
        path.parent.mkdir(parents=True)
        path.write_bytes(case.make())
    before = fingerprints(folder / "in")
    run = flipnet(
        "restore", folder / "in", "-o", folder / "out", "--aligned", "--blend", "0", "--format", "png",
        "--steps", "1", "--model", checkpoint, "--device", "cpu", "--report", folder / "report.json",
    )  # fmt: skip
    assert fingerprints(folder / "in") == before
    return run


def what_is_wrong(case: Case, photo: dict) -> str | None:
    """Compare what the report says about a case, and its output, with what must become of it."""
    if photo["status"] == "failed":
        if case.refused is None:
            return f"refused: {photo['cause']}"
        if not is_one_sentence(photo["cause"]):
            return f"no sentence: {photo['cause']!r}"
        return None if re.search(case.refused, photo["cause"]) else f"unclear: {photo['cause']}"
    if photo["status"] != "restored":
        return f"status {photo['status']}"
    if case.pixels is None:
        return None if case.refused == "." else "not refused"
    return differs(case, Path(photo["output"]))


def differs(case: Case, output: Path) -> str | None:
    data = output.read_bytes()
    samples = imagecodecs.png_decode(data)
    with Image.open(output) as opened:
        profile = opened.info.get("icc_profile")
    samples = samples[..., None] if samples.ndim == 2 else samples
    if samples.shape[:2] != (SIDE, SIDE):
        return f"size {samples.shape}"
    colours = samples[..., :3] if samples.shape[2] > 2 else samples[..., :1]
    alpha = samples[..., -1] if samples.shape[2] in (2, 4) else None
    if colours.dtype != (np.uint16 if case.pixels.dtype == np.uint16 else np.uint8):
        return f"depth {colours.dtype}"
    error = np.abs(colours.astype(float) - case.pixels)
    if error.mean() > case.tolerance:
        return f"pixels off by {error.mean():.2f}, at most {error.max():.0f}"
    if (alpha is None) != (case.alpha is None) or (
        alpha is not None and not np.array_equal(alpha, case.alpha)
    ):
        return "another transparency"
    return "another profile" if case.profile is not None and profile != case.profile else None


@pytest.mark.parametrize("group", GROUPS)
def test_every_file_ends_in_the_right_picture_or_one_sentence(tmp_path, tiny_checkpoint, group):
    table = cases(group)
    run = restore_all(tmp_path, table, tiny_checkpoint)
    photos = report_of(tmp_path / "report.json")
    wrong = []
    for index, case in enumerate(table):
        photo = photos.get(str(tmp_path / "in" / f"{index:03}" / case.name))
        problem = "not in the report" if photo is None else what_is_wrong(case, photo)
        if problem:
            wrong.append(f"{case.name!r}: {problem}")
    assert not wrong, "\n" + "\n".join(wrong)
    # Nothing but the results is in the output folder, and the failures are one line each.
    outputs = {photo["output"] for photo in photos.values() if photo["output"]}
    assert {str(tmp_path / "out" / name) for name in fingerprints(tmp_path / "out")} == outputs
    failed = [photo for photo in photos.values() if photo["status"] == "failed"]
    assert run.code == (1 if failed else 0)


def test_the_table_is_long_enough():
    assert sum(len(cases(group)) for group in GROUPS) >= 300


def test_whole_photos_of_every_kind_keep_their_pixels_and_their_face_is_found(tmp_path, tiny_checkpoint):
    """A portrait turned eight ways and in five kinds of samples; with blend 0 nothing may change."""
    upright = skimage.data.astronaut()[:256, 96:352]
    folder = tmp_path / "in"
    folder.mkdir()
    for orientation in range(1, 9):
        stored = Image.fromarray(upright)
        if orientation in STORED_AS:
            stored = stored.transpose(STORED_AS[orientation])
        stored.save(folder / f"turned-{orientation}.png", exif=exif_block(orientation))
    opaque = np.full((256, 256, 1), 255, np.uint8)
    Image.fromarray(np.concatenate([upright, opaque], 2)).save(folder / "alpha.png")
    ink = np.concatenate([255 - upright, opaque * 0], 2)
    Image.frombytes("CMYK", (256, 256), ink.tobytes()).save(folder / "ink.tif")
    (folder / "deep.tif").write_bytes(tiff(upright.astype(np.uint16) * 257, photometric="rgb"))
    before = fingerprints(folder)
    run = flipnet(
        "restore", folder, "-o", tmp_path / "out", "--blend", "0", "--format", "png", "--steps", "1",
        "--model", tiny_checkpoint, "--device", "cpu", "--report", tmp_path / "report.json",
    )  # fmt: skip
    photos = report_of(tmp_path / "report.json")
    assert run.code == 0
    assert len(photos) == 11
    for source, photo in photos.items():
        samples = imagecodecs.png_decode(Path(photo["output"]).read_bytes())[..., :3]
        expected = upright.astype(np.uint16) * 257 if "deep" in source else upright
        np.testing.assert_array_equal(samples, expected, err_msg=source)
        (face,) = photo["faces"]
        assert np.hypot(face["landmarks_px"][2][0] - 124, face["landmarks_px"][2][1] - 120) < 12, source
    assert fingerprints(folder) == before
