"""`flipnet restore clip.mp4` as a whole, with a tiny real network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("av", reason="video needs PyAV (extra: video)")

from clips import background, moving_face, packets, read_frames, write_clip

from flipnet.cli import main
from flipnet.commands.outputs import Existing, OutputNaming
from flipnet.commands.video import plan_clips
from flipnet.types import FlipnetError


@pytest.fixture
def run_cli(capsys, tiny_checkpoint):
    def run(*arguments: object) -> tuple[int, str, str]:
        command = [str(argument) for argument in arguments]
        with pytest.raises(SystemExit) as leaving:
            main([*command, "--model", str(tiny_checkpoint), "--device", "cpu"])
        captured = capsys.readouterr()
        return leaving.value.code or 0, captured.out, captured.err

    return run


def test_a_clip_becomes_a_restored_clip_with_a_report(run_cli, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", moving_face(8))
    target, report = tmp_path / "new" / "out.mp4", tmp_path / "report.json"
    code, out, _ = run_cli("restore", clip, "-o", target, "--seed", 5, "--report", report)
    assert code == 0
    assert f"{target}: faces restored in 8 of 8 frames (1 face followed, found in 8)" in out
    assert out.endswith("1 of 1 clip restored, 0 skipped, 0 failed\n")
    assert len(read_frames(target)) == 8
    assert packets(target, "audio") == packets(clip, "audio")
    document = json.loads(report.read_text())
    (video,) = document["videos"]
    assert (video["status"], video["frames"], video["frames_restored"]) == ("restored", 8, 8)
    assert (video["tracks"][0]["seed"], video["sound"], video["cause"]) == (5, "copied", None)
    assert document["settings"]["detect_every"] == 1
    assert "not evidence" in document["note"]


def test_failures_are_listed_last_and_leave_nothing(run_cli, tmp_path):
    write_clip(tmp_path / "good.mp4", moving_face(4))
    write_clip(tmp_path / "empty.mp4", [background()] * 4)
    (tmp_path / "bad.mp4").write_bytes(b"no clip")
    inputs = [tmp_path / name for name in ("good.mp4", "empty.mp4", "bad.mp4", "gone.mp4")]
    code, out, err = run_cli("restore", *inputs, "-o", tmp_path / "out")
    assert code == 1
    assert out.endswith("1 of 4 clips restored, 0 skipped, 3 failed\n")
    assert sorted(line.split(": ")[0].rpartition("/")[2] for line in err.splitlines()[-3:]) == [
        "bad.mp4",
        "empty.mp4",
        "gone.mp4",
    ]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.mp4"]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--compare"], "--compare is for photos"),
        (["--save-faces"], "--save-faces is for photos"),
        (["--faces", "0"], "no lasting numbers"),
    ],
)
def test_options_for_photos_are_refused_before_anything_runs(run_cli, tmp_path, extra, words):
    clip = write_clip(tmp_path / "clip.mp4", moving_face(2))
    code, _, err = run_cli("restore", clip, "-o", tmp_path / "out.mp4", *extra)
    assert code == 2
    assert words in err
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


def test_outputs_are_named_after_their_inputs(tmp_path):
    inputs = touch(tmp_path, "a.mkv", "b.avi", "c.MP4")
    plan = plan_clips(inputs, OutputNaming(tmp_path / "out", suffix="_x"), Existing.FAIL)
    assert [job.target.name for job in plan.jobs] == ["a_x.mkv", "b_x.mp4", "c_x.MP4"]


def test_an_output_that_exists_is_kept_unless_told_otherwise(tmp_path):
    clip, old = touch(tmp_path, "a.mp4", "b.mp4")
    naming = OutputNaming(old)
    assert "exists already" in plan_clips([clip], naming, Existing.FAIL).failures[0][1]
    assert plan_clips([clip], naming, Existing.SKIP).skipped[0].target == old
    assert plan_clips([clip], naming, Existing.OVERWRITE).jobs[0].target == old


@pytest.mark.parametrize(
    ("names", "naming", "words"),
    [
        (["a.mp4", "b.jpg"], OutputNaming(Path("out")), "separate runs"),
        (["a.mp4", "b.mp4"], OutputNaming(Path("out.mp4")), "several inputs"),
        (["a.mp4"], OutputNaming(Path("out.avi")), "cannot be written"),
        (["a.mp4"], OutputNaming(Path("out.mp4"), suffix="_x"), "--suffix"),
        (["a.mp4"], OutputNaming(Path("out"), extension="png"), "--format"),
        (["a.mp4"], OutputNaming(Path(".")), "overwrite an input"),
        (["a.mp4", "a.avi"], OutputNaming(Path("out")), "another result"),
    ],
)
def test_clashes_stop_the_run(tmp_path, monkeypatch, names, naming, words):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, *names)
    with pytest.raises(FlipnetError, match=words):
        plan_clips([Path(name) for name in names], naming, Existing.FAIL)
