"""What may go wrong around a photo: the disk, the memory, the detector, the network, the process itself."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import fingerprints, flipnet, is_one_sentence, report_of
from PIL import Image
from safetensors.torch import load_file, save_file

from flipnet.commands.outputs import Job, OutputNaming
from flipnet.commands.report import PhotoStatus
from flipnet.commands.restore import RestoreSettings, restore_job
from flipnet.images import ImageError, Photo, write_photo
from flipnet.pipelines.restore import FaceRestorer

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def without_extras(monkeypatch):
    """As installed without extras; dlib's comparison of faces is most of a tiny photo's time."""
    monkeypatch.setitem(sys.modules, "dlib", None)


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of five 64 x 64 pictures."""
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(5):
        noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        noise.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


def restore(inputs: Path, output: Path, checkpoint: Path, *more: str | Path):
    fixed = ("--aligned", "--steps", "1", "--device", "cpu", "--model", checkpoint)
    return flipnet("restore", inputs, "-o", output, *fixed, *more)


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def small_disk(path: Path, options: str):
    """A file system in memory at `path`; skips where this process may not mount one."""
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


# ----------------------------------------------------------------------------------------- output folders


def test_a_full_disk_fails_the_photos_and_leaves_nothing_half_written(tmp_path, tiny_checkpoint, photos):
    before = fingerprints(photos)
    with small_disk(tmp_path / "full", "size=16k") as disk:
        run = restore(photos, disk, tiny_checkpoint, "--compare", "--report", tmp_path / "report.json")
        records = report_of(tmp_path / "report.json").values()
        failed = [record for record in records if record["status"] == "failed"]
        assert failed
        assert all("cannot be written" in record["cause"] for record in failed)
        assert all(is_one_sentence(record["cause"]) for record in failed)
        for name in visible(disk):
            with Image.open(disk / name) as whole:
                whole.load()
        results = {Path(record["output"]).name for record in records if record["output"]}
        assert set(visible(disk)) == results | {name.replace(".png", "_compare.png") for name in results}
    assert run.code == 1
    assert fingerprints(photos) == before


def test_a_report_that_finds_the_disk_full_is_said_after_the_summary(tmp_path, tiny_checkpoint, photos):
    with small_disk(tmp_path / "full", "size=4k,nr_inodes=2") as disk:
        (disk / "filler").write_bytes(bytes(4096))
        run = restore(photos, tmp_path / "out", tiny_checkpoint, "--report", disk / "report.json")
        assert visible(disk) == ["filler"]
    assert run.code == 2
    assert run.stdout.startswith("5 of 5 photos restored")
    assert run.sentences()[-1].startswith(f"flipnet: {disk}/report.json: cannot be written (")
    assert len(visible(tmp_path / "out")) == 5


@pytest.mark.parametrize("subfolder", ["", "below"])
def test_a_read_only_disk_is_one_sentence(tmp_path, tiny_checkpoint, photos, subfolder):
    with small_disk(tmp_path / "locked", "ro") as disk:
        run = restore(photos, disk / subfolder, tiny_checkpoint, "--report", tmp_path / "report.json")
        assert visible(disk) == []
    assert run.code == (2 if subfolder else 1)
    assert run.stderr.count("(Read-only file system)") == (1 if subfolder else 5)


def test_a_file_larger_than_allowed_leaves_nothing(tmp_path, photos):
    """A limit on file sizes stands for quotas: the write fails in the middle."""
    photo = Photo(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        for name in ("a.png", "a.jpg", "a.webp", "a.tif"):
            with pytest.raises(ImageError, match=rf"{name}: cannot be written"):
                write_photo(tmp_path / name, photo)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert visible(tmp_path) == ["in"]


def test_an_output_folder_that_vanishes_is_made_again(tmp_path, tiny_checkpoint, photos):
    restorer = Vanishing(
        FaceRestorer.from_checkpoint(tiny_checkpoint, steps=1, device="cpu"), tmp_path / "out"
    )
    for name in ("0.png", "1.png"):
        job = Job(photos / name, tmp_path / "out" / name)
        assert restore_job(job, aligned(job), restorer, None).status is PhotoStatus.RESTORED
        assert visible(tmp_path / "out") == [name]


def test_a_file_where_a_folder_must_be_is_one_sentence(tmp_path, tiny_checkpoint, photos):
    (tmp_path / "out").write_text("mine")
    run = restore(photos, tmp_path / "out", tiny_checkpoint)
    assert (run.code, len(run.sentences())) == (2, 1)
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("given", ["loop", "loop/below", "n" * 300, "dangling"])
def test_odd_paths_are_one_sentence_each(tmp_path, tiny_checkpoint, photos, given):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "deep")
    for run in (
        restore(tmp_path / given, tmp_path / "out", tiny_checkpoint),
        restore(photos, tmp_path / given, tiny_checkpoint),
        restore(photos, tmp_path / "out", tiny_checkpoint, "--report", tmp_path / given / "report.json"),
    ):
        assert run.code in (1, 2)
        assert 1 <= len(run.sentences()) <= 5
        assert all(is_one_sentence(line) for line in run.sentences())
    assert len(fingerprints(photos)) == 5


def test_link_loops_pipes_and_devices_in_a_folder_are_left_alone(tmp_path, tiny_checkpoint, photos):
    (photos / "self.png").symlink_to(photos / "self.png")
    (photos / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (photos / "up").symlink_to(photos.parent)
    (photos / "folder.png").mkdir()
    os.mkfifo(photos / "pipe.png")
    assert restore(photos, tmp_path / "out", tiny_checkpoint).code == 0
    assert visible(tmp_path / "out") == [f"{index}.png" for index in range(5)]
    for special in (photos / "pipe.png", Path("/dev/zero")):
        run = restore(special, tmp_path / "out2", tiny_checkpoint)
        assert run.code == 1
        assert "neither a file nor a folder" in run.stderr


def test_the_input_folder_is_never_the_output_folder(tmp_path, tiny_checkpoint, photos):
    before = fingerprints(photos)
    (tmp_path / "link").symlink_to(photos)
    for output in (photos, photos / ".." / "in", tmp_path / "link"):
        for more in ((), ("--overwrite",), ("--skip-existing",)):
            run = restore(photos, output, tiny_checkpoint, *more)
            assert run.code == 2
            assert "would overwrite an input" in run.stderr
    assert fingerprints(photos) == before


def test_names_that_are_no_text_or_break_lines_are_shown_on_one_line(tmp_path, tiny_checkpoint):
    odd = tmp_path / os.fsdecode(b"in\n\xff\x1b[31m")
    odd.mkdir()
    (odd / os.fsdecode(b"\xfe\n.png")).write_bytes(b"no picture")
    run = restore(odd, tmp_path / os.fsdecode(b"out\xff"), tiny_checkpoint)
    assert run.code == 1
    (line,) = run.sentences()
    assert "\\n" in line
    assert "\\udcff" in line
    assert "\x1b" not in line + run.stdout
    run = restore(odd / "no\nsuch.png", tmp_path / "out", tiny_checkpoint / "no\nsuch")
    assert all(is_one_sentence(sentence) for sentence in run.sentences())


def aligned(job: Job) -> RestoreSettings:
    return RestoreSettings(OutputNaming(job.target.parent), aligned=True)


class Vanishing:
    """A restorer during whose work somebody removes a folder."""

    def __init__(self, restorer: FaceRestorer, folder: Path) -> None:
        self.restorer, self.folder = restorer, folder
        self.native_size_px = restorer.native_size_px

    def __call__(self, faces, seeds):
        shutil.rmtree(self.folder, ignore_errors=True)
        return self.restorer(faces, seeds)


# -------------------------------------------------------------------------------------- detector, network


@pytest.mark.parametrize(
    "error", [RuntimeError("bad allocation"), ValueError("shape"), MemoryError(), OSError(5, "I/O")]
)
def test_a_detector_that_raises_costs_its_photo_only(tmp_path, tiny_checkpoint, photos, error):
    restorer = FaceRestorer.from_checkpoint(tiny_checkpoint, steps=1, device="cpu")

    def detector(pixels):
        raise error

    job = Job(photos / "0.png", tmp_path / "out" / "0.png")
    record = restore_job(job, RestoreSettings(OutputNaming(job.target.parent)), restorer, detector)
    assert record.status is PhotoStatus.FAILED
    assert is_one_sentence(record.cause)
    assert not job.target.parent.exists()


def with_huge_weights(checkpoint: Path, folder: Path, part: str, tensor: str) -> Path:
    """Finite weights, but so large that what they make of anything but zeros is not."""
    model = shutil.copytree(checkpoint, folder / "model")
    file = model / part / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors[tensor].fill_(3e38)
    save_file(tensors, file)
    return model


def test_a_network_that_returns_nan_for_everything_is_refused_before_the_first_photo(
    tmp_path, tiny_checkpoint, photos
):
    model = with_huge_weights(tiny_checkpoint, tmp_path, "unet", "conv_out.weight")
    run = restore(photos, tmp_path / "out", model)
    assert run.code == 2
    assert run.sentences() == [
        f"flipnet: {model}: its parts do not work together: mode 'restoration' gives values that are not finite"
    ]


def test_a_network_that_returns_nan_for_photos_fails_every_one_and_the_run_ends(
    tmp_path, tiny_checkpoint, photos
):
    # The trial at loading is of a gray face, all zeros.
    model = with_huge_weights(tiny_checkpoint, tmp_path, "vae", "encoder.stem.weight")
    run = restore(photos, tmp_path / "out", model, "--report", tmp_path / "report.json")
    assert run.code == 1
    causes = {record["cause"] for record in report_of(tmp_path / "report.json").values()}
    assert causes == {"no face was restored: the restorer returned values that are not finite"}
    assert visible(tmp_path / "out") == []


def test_nan_from_one_photo_leaves_the_others_restored(tmp_path, tiny_checkpoint, photos):
    pipeline = FaceRestorer.from_checkpoint(tiny_checkpoint, steps=1, device="cpu")
    records = []
    for index in range(3):
        weight = pipeline.pipeline.unet.conv_in.bias
        kept = weight.detach().clone()
        if index == 1:
            with torch.no_grad():
                weight.fill_(float("nan"))
        job = Job(photos / f"{index}.png", tmp_path / "out" / f"{index}.png")
        records.append(restore_job(job, aligned(job), pipeline, None))
        with torch.no_grad():
            weight.copy_(kept)
    assert [record.status.value for record in records] == ["restored", "failed", "restored"]
    assert visible(tmp_path / "out") == ["0.png", "2.png"]


# ------------------------------------------------------------------------------------------------ memory


def _restore_with_little_memory(photos: Path, output: Path, checkpoint: Path, report: Path) -> None:
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)
    run = restore(photos, output, checkpoint, "--report", report)
    os._exit(run.code)


def test_out_of_memory_fails_the_large_photo_and_the_rest_go_on(tmp_path, tiny_checkpoint, photos):
    Image.new("RGB", (12_000, 12_000)).save(photos / "2-large.png")  # 432 MB of pixels
    arguments = (photos, tmp_path / "out", tiny_checkpoint, tmp_path / "report.json")
    child = FORK.Process(target=_restore_with_little_memory, args=arguments)
    child.start()
    child.join(60)
    assert child.exitcode == 1
    records = report_of(tmp_path / "report.json")
    large = records.pop(str(photos / "2-large.png"))
    assert (large["status"], large["cause"]) == ("failed", "not enough memory for this photo")
    assert {record["status"] for record in records.values()} == {"restored"}
    assert visible(tmp_path / "out") == [f"{index}.png" for index in range(5)]


# ---------------------------------------------------------------------------------------------- kill -9


def _restore_and_exit(*arguments: str | Path) -> None:
    os.environ["NO_COLOR"] = "1"
    os._exit(restore(*arguments).code)


def test_a_killed_batch_goes_on_where_it_was(tmp_path, tiny_checkpoint, photos):
    for index in range(5, 12):
        shutil.copy(photos / "0.png", photos / f"{index}.png")
    output, rng = tmp_path / "out", np.random.default_rng(8)
    for _ in range(3):
        child = FORK.Process(
            target=_restore_and_exit, args=(photos, output, tiny_checkpoint, "--skip-existing")
        )
        already, started = len(list(output.glob("*.png"))), time.monotonic()
        child.start()
        # Killed within a photo of the run's own: somewhere after its first new result.
        while (
            len(list(output.glob("*.png"))) <= already
            and time.monotonic() - started < 60
            and child.is_alive()
        ):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        child.kill()
        child.join()
    kept = {path.name: path.stat().st_mtime_ns for path in output.glob("*.png")}
    assert kept
    run = restore(photos, output, tiny_checkpoint, "--skip-existing", "--report", tmp_path / "report.json")
    assert run.code == 0
    assert f"{len(kept)} skipped, 0 failed" in run.stdout
    assert sorted(path.name for path in output.glob("*.png")) == sorted(
        path.name for path in photos.iterdir()
    )
    # Every photo restored once, to the bit as in a run of its own, and the report has them all.
    assert all((output / name).stat().st_mtime_ns == changed for name, changed in kept.items())
    restore(photos, tmp_path / "unbroken", tiny_checkpoint)
    for name in visible(tmp_path / "unbroken"):
        with Image.open(output / name) as one, Image.open(tmp_path / "unbroken" / name) as other:
            assert np.array_equal(np.asarray(one), np.asarray(other))
    assert len(json.loads((tmp_path / "report.json").read_text())["photos"]) == 12
    # What a killed write leaves is hidden, and no picture to a later run over this folder.
    strays = set(visible(output)) - set(visible(photos))
    assert all(name.startswith(".flipnet-") and name.endswith(".part") for name in strays)


def _train_and_exit(recipe: Path, output: Path, resume: bool) -> None:
    from flipnet.training import run_recipe

    run_recipe(recipe, output=output, resume=resume)
    os._exit(0)


def test_killed_training_resumes_to_the_same_weights(tmp_path, photos):
    recipe = tmp_path / "autoencoder.toml"
    recipe.write_text(
        'stage = "autoencoder"\n'
        f'[data]\ntrain = ["{photos}"]\nval = ["{photos}"]\nsize_px = 64\ncache = "{tmp_path}/cache"\n'
        "[optim]\nsteps = 12\nbatch_size = 2\nlearning_rate = 1e-3\nwarmup_steps = 1\nema_decay = 0.5\n"
        '[run]\nprecision = "no"\nvalidate_every = 100\nlog_every = 1\ncheckpoint_minutes = 1e-9\n'
        "[autoencoder]\nchannels = [8, 8]\nblocks = 1\nlatent_channels = 4\ncrop_px = 32\n"
    )
    child = FORK.Process(target=_train_and_exit, args=(recipe, tmp_path / "unbroken", False))
    child.start()
    child.join(90)
    assert child.exitcode == 0
    rng, output, kills = np.random.default_rng(4), tmp_path / "killed", 0
    for target in (2, 6, 9):
        resume = any((output / "checkpoints").glob("step-*"))
        child = FORK.Process(target=_train_and_exit, args=(recipe, output, resume))
        child.start()
        deadline = time.monotonic() + 60
        while child.is_alive() and not list((output / "checkpoints").glob(f"step-{target:08d}")):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.03))
        kills += child.is_alive()
        child.kill()
        child.join()
    assert kills == 3
    child = FORK.Process(target=_train_and_exit, args=(recipe, output, True))
    child.start()
    child.join(90)
    assert child.exitcode == 0
    name = "final/diffusion_pytorch_model.safetensors"
    unbroken, resumed = load_file(tmp_path / "unbroken" / name), load_file(output / name)
    assert unbroken.keys() == resumed.keys()
    assert all(torch.equal(unbroken[key], resumed[key]) for key in unbroken)
