"""`flipnet degrade` with a tiny real network and with the naive recipes: files, seeds, reports, exit codes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from flipnet.cli import main
from flipnet.commands.degrade import result_seed
from flipnet.commands.degrade_methods import NAIVE_SIZE_PX, Degraded, NaiveMethod
from flipnet.commands.degrade_outputs import PairShards
from flipnet.commands.degrade_report import ResultRecord, ResultStatus
from flipnet.data.degradation import PRESETS, degrade_with, preset, sample_parameters
from flipnet.data.shards import OfflinePairs
from flipnet.images import Photo
from two_modes import two_mode_pipeline


@pytest.fixture(scope="module")
def two_mode_checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "two-modes"
    two_mode_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def degrade(capsys, two_mode_checkpoint):
    """Run `flipnet degrade` with the tiny model in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object, model: object = two_mode_checkpoint) -> tuple[int, str, str]:
        command = ["degrade", *(str(argument) for argument in arguments)]
        with pytest.raises(SystemExit) as leaving:
            main([*command, "--model", str(model), "--device", "cpu", "--steps", "1"])
        captured = capsys.readouterr()
        return leaving.value.code or 0, captured.out, captured.err

    return run


def save_face(path: Path, *, side_px: int = 64, shift: int = 0) -> Path:
    """Write a square crop around a real face; another `shift`, another crop."""
    path.parent.mkdir(parents=True, exist_ok=True)
    crop = Image.fromarray(skimage.data.astronaut()[shift : shift + 200, 120:320])
    crop.resize((side_px, side_px)).save(path)
    return path


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# ------------------------------------------------------------------------------------------- the network


def test_variants_are_numbered_files_that_differ_and_their_seeds_are_said(degrade, tmp_path):
    face = save_face(tmp_path / "face.jpg")
    code, out, err = degrade(face, "-o", tmp_path / "lq", "--variants", 3)
    names = ["face_00.png", "face_01.png", "face_02.png"]
    assert (code, err) == (0, "")
    assert files_below(tmp_path / "lq") == names
    seeds = [result_seed(0, name.removesuffix(".png")) for name in names]
    assert len(set(seeds)) == 3
    assert out.splitlines() == [
        *(f"{tmp_path / 'lq' / name} seed {seed}" for name, seed in zip(names, seeds, strict=True)),
        f"3 of 3 results written, 0 skipped, 0 failed; results in {tmp_path / 'lq'}",
    ]
    first, second, third = (pixels_of(tmp_path / "lq" / name) for name in names)
    assert first.shape == (64, 64, 3)
    assert min(np.abs(a - b).mean() for a, b in ((first, second), (first, third), (second, third))) > 1


def test_same_seed_same_files_whatever_else_is_degraded(degrade, tmp_path):
    save_face(tmp_path / "in" / "b.png")
    assert degrade(tmp_path / "in", "-o", tmp_path / "one", "--variants", 2, "--seed", 3)[0] == 0
    save_face(tmp_path / "in" / "a.png", shift=20)
    save_face(tmp_path / "in" / "deep" / "b.png", shift=40)
    assert degrade(tmp_path / "in", "-o", tmp_path / "two", "--variants", 3, "--seed", 3)[0] == 0
    assert degrade(tmp_path / "in" / "b.png", "-o", tmp_path / "other", "--seed", 4)[0] == 0
    for name in ("b_00.png", "b_01.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert (tmp_path / "one" / "b_00.png").read_bytes() != (tmp_path / "other" / "b_00.png").read_bytes()
    assert "deep/b_02.png" in files_below(tmp_path / "two")
    assert len(files_below(tmp_path / "two")) == 9


def test_batch_equals_single(degrade, tmp_path, monkeypatch):
    from flipnet.pipelines import pipeline

    # As on a CPU without bf16, whose three digits would hide what is compared here.
    monkeypatch.setattr(pipeline, "cpu_has_bf16", lambda: False)
    for index in range(3):
        save_face(tmp_path / "in" / f"{index}.png", shift=10 * index)
    for name, size in (("single", 1), ("batch", 4)):
        options = ("--variants", 2, "--batch-size", size)
        assert degrade(tmp_path / "in", "-o", tmp_path / name, *options)[0] == 0
    names = files_below(tmp_path / "single")
    assert len(names) == 6
    for name in names:
        difference = pixels_of(tmp_path / "single" / name) - pixels_of(tmp_path / "batch" / name)
        assert np.abs(difference).max() <= 2


def test_checkpoint_without_the_mode_is_usage(degrade, tmp_path, tiny_checkpoint):
    face = save_face(tmp_path / "face.png")
    code, out, err = degrade(face, "-o", tmp_path / "lq", model=tiny_checkpoint)
    assert (code, out) == (2, "")
    assert err == (f"flipnet: {tiny_checkpoint}: This model has no mode 'degradation'; it has restoration.\n")
    assert files_below(tmp_path / "lq") == []


def test_values_that_are_not_finite_are_a_failure_and_no_picture(degrade, tmp_path):
    broken = two_mode_pipeline()
    # Finite, or the checkpoint would be refused, and so is what it makes of a gray face; other products overflow.
    broken.vae.encoder.stem.weight.fill_(3e38)
    broken.save_pretrained(tmp_path / "model")
    face = save_face(tmp_path / "face.png")
    code, out, err = degrade(face, "-o", tmp_path / "lq", model=tmp_path / "model")
    assert code == 1
    assert out.startswith("0 of 1 results written, 0 skipped, 1 failed")
    assert err == f"{face}: the network returned values that are not finite\n"
    assert files_below(tmp_path / "lq") == []


def test_bad_inputs_do_not_stop_the_others_and_come_last(degrade, tmp_path):
    faces = tmp_path / "Gesichter ü"
    save_face(faces / "a.png")
    (faces / "text.jpg").write_text("no picture")
    save_face(faces / "wide.png", side_px=100)
    report = tmp_path / "report.json"
    inputs = (faces, tmp_path / "gone.png")
    code, out, err = degrade(*inputs, "-o", tmp_path / "lq", "--variants", 2, "--report", report)
    assert code == 1
    assert out.splitlines()[-1] == (
        f"4 of 7 results written, 0 skipped, 3 failed; results in {tmp_path / 'lq'}"
    )
    assert err.splitlines() == [
        f"{faces / 'wide.png'}: aligned crop of 100x100 pixels resized to 64x64",
        f"{tmp_path / 'gone.png'}: no such file or folder",
        f"{faces / 'text.jpg'}: not a picture, or of a format that is not supported",
    ]
    assert files_below(tmp_path / "lq") == ["a_00.png", "a_01.png", "wide_00.png", "wide_01.png"]
    document = json.loads(report.read_text(encoding="utf-8"))
    assert document["totals"] == {"written": 4, "failed": 3, "skipped": 0}
    assert document["settings"]["steps"] == 1
    assert document["settings"]["size_px"] == 64
    by_key = {result["key"]: result for result in document["results"]}
    assert by_key["a_01"]["seed"] == result_seed(0, "a_01")
    assert by_key["a_01"]["output"] == str(tmp_path / "lq" / "a_01.png")
    assert by_key["text_00"]["status"] == "failed"
    assert by_key["text_00"]["output"] is None


def test_skip_existing_makes_only_what_is_missing(degrade, tmp_path):
    face = save_face(tmp_path / "face.png")
    assert degrade(face, "-o", tmp_path / "whole", "--variants", 3)[0] == 0
    (tmp_path / "lq").mkdir()
    (tmp_path / "lq" / "face_01.png").write_bytes(b"mine")
    code, out, err = degrade(face, "-o", tmp_path / "lq", "--variants", 3, "--skip-existing")
    assert (code, err) == (0, "")
    assert "2 of 3 results written, 1 skipped, 0 failed" in out
    assert (tmp_path / "lq" / "face_01.png").read_bytes() == b"mine"
    for name in ("face_00.png", "face_02.png"):
        assert (tmp_path / "lq" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    code, _, err = degrade(face, "-o", tmp_path / "lq", "--variants", 3)
    assert code == 1
    assert err.count("exists already (--overwrite or --skip-existing)") == 3
    assert degrade(face, "-o", tmp_path / "lq", "--variants", 3, "--overwrite")[0] == 0
    assert files_below(tmp_path / "lq") == files_below(tmp_path / "whole")
    assert (tmp_path / "lq" / "face_01.png").read_bytes() == (tmp_path / "whole" / "face_01.png").read_bytes()


def test_results_beside_their_inputs_are_no_inputs_of_the_next_run(degrade, tmp_path):
    save_face(tmp_path / "face.jpg")
    assert degrade(tmp_path, "-o", tmp_path, "--variants", 3)[0] == 0
    code, out, _ = degrade(tmp_path, "-o", tmp_path, "--variants", 1, "--skip-existing")
    assert code == 0
    assert "0 of 1 results written, 1 skipped" in out
    assert files_below(tmp_path) == ["face.jpg", "face_00.png", "face_01.png", "face_02.png"]


# ------------------------------------------------------------------------------------- the naive recipes


@pytest.mark.parametrize("method", ["gfpgan", "real-esrgan"])
def test_naive_recipes_are_those_of_the_data_module_and_load_no_model(degrade, tmp_path, method):
    face = save_face(tmp_path / "in" / "face.png", side_px=NAIVE_SIZE_PX)
    options = ("--method", method, "--seed", 5, "--report", tmp_path / "report.json")
    code, _, err = degrade(tmp_path / "in", "-o", tmp_path / "lq", *options, model="no-such-model")
    assert (code, err) == (0, "")
    expected, _ = degrade_with(preset(method), np.asarray(Image.open(face)), result_seed(5, "face_00"))
    np.testing.assert_array_equal(pixels_of(tmp_path / "lq" / "face_00.png"), expected)
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["settings"]["method"] == method
    assert document["settings"]["model"] is None
    assert document["results"][0]["parameters"] is not None


def test_unknown_method_lists_the_known_ones(degrade, tmp_path):
    face = save_face(tmp_path / "face.png")
    code, _, err = degrade(face, "-o", tmp_path / "lq", "--method", "magic")
    assert code == 2
    assert err == f"flipnet: --method magic: no such degradation; known are flipnet, {', '.join(PRESETS)}\n"
    assert not (tmp_path / "lq").exists()


def test_measure_says_how_much_the_face_changed(degrade, tmp_path):
    save_face(tmp_path / "face.png", side_px=NAIVE_SIZE_PX)
    Image.new("RGB", (NAIVE_SIZE_PX, NAIVE_SIZE_PX), "gray").save(tmp_path / "wall.png")
    report = tmp_path / "report.json"
    inputs = (tmp_path / "face.png", tmp_path / "wall.png")
    assert (
        degrade(*inputs, "-o", tmp_path / "lq", "--method", "mild", "--measure", "--report", report)[0] == 0
    )
    face, wall = (result["content"] for result in json.loads(report.read_text())["results"])
    assert 0 < face["landmark_shift_px"] < 20
    assert face["landmarks_missing"] is None
    assert (face["identity_distance"] is None) == (face["identity_missing"] is not None)
    assert wall["landmark_shift_px"] is None
    assert wall["landmarks_missing"] == "no face was found in the clean image"


# ---------------------------------------------------------------------------------------------- shards


def test_shards_hold_the_pairs_and_a_second_run_adds_what_is_missing(degrade, tmp_path):
    first = save_face(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "broken.png").write_text("no picture")
    options = ("--variants", 3, "--shards", 2, "--seed", 7)
    code, out, _ = degrade(tmp_path / "in", "-o", tmp_path / "pairs", *options)
    assert code == 1
    assert out == f"3 of 6 results written, 0 skipped, 3 failed; results in {tmp_path / 'pairs'}\n"
    assert files_below(tmp_path / "pairs") == ["pairs-000000.tar", "pairs-000001.tar"]
    (tmp_path / "in" / "broken.png").unlink()
    save_face(tmp_path / "in" / "deep" / "b.png", shift=30)
    code, out, _ = degrade(tmp_path / "in", "-o", tmp_path / "pairs", *options, "--skip-existing")
    assert code == 0
    assert "3 of 6 results written, 3 skipped, 0 failed" in out

    pairs = OfflinePairs(tmp_path / "pairs")
    assert pairs.keys == ("a_00", "a_01", "a_02", "deep/b_00", "deep/b_01", "deep/b_02")
    np.testing.assert_array_equal(pairs[1]["hq"].permute(1, 2, 0), pixels_of(first))
    assert degrade(first, "-o", tmp_path / "png", "--variants", 3, "--seed", 7)[0] == 0
    np.testing.assert_array_equal(pairs[1]["lq"].permute(1, 2, 0), pixels_of(tmp_path / "png" / "a_01.png"))
    record = pairs.record(1)
    assert (record.method, record.seed, record.phi) == ("flipnet", result_seed(7, "a_01"), 1.0)


def test_pairs_that_are_there_are_failures_unless_skipped_and_never_replaced(degrade, tmp_path):
    face = save_face(tmp_path / "a.png", side_px=NAIVE_SIZE_PX)
    options = ("-o", tmp_path / "pairs", "--shards", 9, "--method", "gfpgan")
    assert degrade(face, *options)[0] == 0
    before = (tmp_path / "pairs" / "pairs-000000.tar").read_bytes()
    code, _, err = degrade(face, *options)
    assert code == 1
    assert err == (
        f"{face}: its pair 'a_00' is in the shards of {tmp_path / 'pairs'} already (--skip-existing)\n"
    )
    assert degrade(face, *options, "--overwrite")[0] == 2
    assert files_below(tmp_path / "pairs") == ["pairs-000000.tar"]
    assert (tmp_path / "pairs" / "pairs-000000.tar").read_bytes() == before


def test_pairs_of_a_shard_that_cannot_be_completed_are_failures(tmp_path):
    store = PairShards(tmp_path / "pairs", 2)
    picture = np.zeros((8, 8, 3), np.uint8)
    records = [ResultRecord(Path(f"{key}.png"), ResultStatus.FAILED, key, 1) for key in "abc"]
    for record in records:
        result, by = Degraded(picture, picture), {"method": "mild", "phi": None, "model": None, "steps": None}
        store.write(record, tmp_path, Photo(picture), result, by)
    shutil.rmtree(tmp_path / "pairs")
    store.close()
    # The first two were a whole shard before the folder went.
    assert [record.status.value for record in records] == ["written", "written", "failed"]
    assert "pairs-000001.tar" in records[2].cause
    assert records[2].output is None


def test_the_clean_side_of_a_pair_is_gray_where_the_recipe_made_the_bad_one_gray():
    colours = np.asarray(Image.fromarray(skimage.data.astronaut()))
    method = NaiveMethod("difface")
    seed = next(
        s for s in range(1000) if sample_parameters(preset("difface"), np.random.default_rng(s)).grayscale
    )
    (pair,) = method([colours], [seed])
    for side in (pair.hq, pair.lq):
        assert np.array_equal(side[..., 0], side[..., 1])
    (pair,) = method([colours], [seed + 1])
    np.testing.assert_array_equal(pair.hq, colours)


# ----------------------------------------------------------------------------------------- bad options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--variants", "0"], "--variants"),
        (["--shards", "0"], "--shards"),
        (["--phi", "3"], "--phi"),
        (["--overwrite", "--skip-existing"], "not both"),
        (["--measure"], "--report"),
        (["--shards", "9", "--overwrite"], "only added to"),
    ],
)
def test_bad_options_are_usage_errors(degrade, tmp_path, options, words):
    face = save_face(tmp_path / "face.png")
    code, out, err = degrade(face, "-o", tmp_path / "lq", *options)
    assert (code, out) == (2, "")
    assert words in err
    assert not (tmp_path / "lq").exists()


def test_output_must_be_a_folder(degrade, tmp_path):
    face = save_face(tmp_path / "face.png")
    code, _, err = degrade(face, "-o", tmp_path / "lq.png")
    assert code == 2
    assert err == (
        f"flipnet: -o {tmp_path / 'lq.png'}: give a folder, each input's results are numbered files in it\n"
    )


def test_two_inputs_of_one_name_are_refused(degrade, tmp_path):
    save_face(tmp_path / "face.png")
    save_face(tmp_path / "face.jpg")
    code, _, err = degrade(tmp_path, "-o", tmp_path / "lq")
    assert code == 2
    assert "would write to the same place" in err
    assert "degrade them into separate folders" in err
