"""`flipnet faces` and the options of `restore` that choose faces, with the real detector on real photos."""

import json

import numpy as np
import pytest
import skimage.data
from PIL import Image

from flipnet.cli import main
from flipnet.images import resize


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A photo of a large face 0 on the left and a small face 1 on the right."""
    head = skimage.data.astronaut()[:256, 96:352]
    pixels = np.full((256, 420, 3), 120, np.uint8)
    pixels[:, :256] = head
    pixels[40:180, 270:410] = resize(head, (140, 140))
    path = tmp_path_factory.mktemp("photos") / "pair.png"
    Image.fromarray(pixels).save(path)
    return path


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return left.value.code or 0, captured.out, captured.err


def changed(before, after):
    """Whether the large and the small face differ between two files."""
    a, b = (np.asarray(Image.open(path)).astype(int) for path in (before, after))
    difference = np.abs(a - b).max(-1)
    # Around the noses, away from where the other face's mask could reach.
    return bool(difference[90:140, 100:150].any()), bool(difference[80:120, 325:355].any())


def test_the_table_says_which_faces_there_are_and_which_would_be_restored(capsys, pair):
    code, out, _ = run(capsys, "faces", pair, "--min-face-size", 80)
    assert code == 0
    assert "pair.png: 2 faces, 420x256 pixels" in out
    rows = [line for line in out.splitlines() if "px │" in line]
    assert [row.split("│")[1].strip() for row in rows] == ["0", "1"]
    assert "yes" in rows[0]
    assert "no: too small" in rows[1]


def test_the_picture_shows_both_boxes_and_the_json_can_be_given_back(capsys, tmp_path, pair):
    shown, boxes = tmp_path / "shown.png", tmp_path / "b.json"
    assert run(capsys, "faces", pair, "-o", shown, "--json", boxes)[0] == 0
    faces = json.loads(boxes.read_text())["pair.png"]
    assert [face["index"] for face in faces] == [0, 1]
    assert faces[0]["size_px"] > faces[1]["size_px"] > 40
    picture = np.asarray(Image.open(shown))
    for face in faces:
        x0, y0, x1, _ = (round(value) for value in face["box_px"])
        assert (40, 200, 90) in {tuple(pixel) for pixel in picture[y0, x0 + 30 : x1 - 5].tolist()}
    code, _, err = run(capsys, "faces", pair, "-o", shown)
    assert code == 2
    assert "exists already (--overwrite)" in err
    # Landmarks stand in the file, so no detector is asked and the score is 1.
    faces.reverse()
    boxes.write_text(json.dumps({"pair.png": faces}))
    code, out, _ = run(capsys, "faces", pair, "--boxes", boxes)
    sizes = [float(row.split("│")[4].split()[0]) for row in out.splitlines() if "px │" in row]
    assert sizes[0] < sizes[1]
    assert out.count("1.00") == 2


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--faces", "1"], (False, True)),
        (["--faces", "largest"], (True, False)),
        (["--exclude-faces", "0"], (False, True)),
        (["--min-face-size", "80"], (True, False)),
    ],
)
def test_restore_changes_the_chosen_faces_only(capsys, tmp_path, tiny_checkpoint, pair, options, expected):
    report = tmp_path / "r.json"
    arguments = ("--model", tiny_checkpoint, "--device", "cpu", "--report", report, *options)
    code, _, err = run(capsys, "restore", pair, "-o", tmp_path / "out", *arguments)
    assert code == 0, err
    assert changed(pair, tmp_path / "out" / "pair.png") == expected
    statuses = [face["status"] == "restored" for face in json.loads(report.read_text())["photos"][0]["faces"]]
    assert tuple(statuses) == expected


def test_restore_takes_boxes_from_a_file(capsys, tmp_path, tiny_checkpoint, pair):
    boxes = tmp_path / "b.json"
    run(capsys, "faces", pair, "--json", boxes)
    faces = json.loads(boxes.read_text())["pair.png"]
    boxes.write_text(json.dumps({"pair.png": faces[1:]}))
    other = tmp_path / "other.png"
    Image.open(pair).save(other)
    arguments = ("--model", tiny_checkpoint, "--device", "cpu", "--boxes", boxes)
    code, out, err = run(capsys, "restore", pair, other, "-o", tmp_path / "out", *arguments)
    assert changed(pair, tmp_path / "out" / "pair.png") == (False, True)
    assert code == 1
    assert "1 of 2 photos restored (1 face)" in out
    assert f"{other}: {boxes} has no entry named 'other.png'" in err


def test_a_photo_without_faces_is_a_failure_and_the_others_are_listed(capsys, tmp_path, pair):
    blank = tmp_path / "blank.png"
    Image.new("RGB", (64, 64), "gray").save(blank)
    code, out, err = run(capsys, "faces", blank, pair)
    assert code == 1
    assert f"{blank}: no face was found in the photo" in err
    assert "pair.png: 2 faces" in out


def test_a_number_that_no_face_has_is_named(capsys, tmp_path, tiny_checkpoint, pair):
    code, _, err = run(capsys, "faces", pair, "--faces", "0,5")
    assert code == 1
    assert "there is no face 5: 2 faces were found, 0 to 1" in err
    arguments = ("--model", tiny_checkpoint, "--device", "cpu", "--exclude-faces", "2")
    code, _, err = run(capsys, "restore", pair, "-o", tmp_path / "out", *arguments)
    assert code == 1
    assert "there is no face 2" in err
    assert not (tmp_path / "out" / "pair.png").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--faces", "biggest"], "'biggest' is not all, largest, center, or numbers"),
        (["--exclude-faces", "a"], "'a' is not a list of numbers"),
        (["--boxes", "none.json"], "none.json: cannot be read"),
        (["--uncertainty"], "give --samples 2 or more"),
        (["--choose", "faithful"], "give --samples 2 or more"),
        (["--aligned", "--boxes", "b.json"], "leave them out with"),
        (["--aligned", "--rotations", "fine"], "leave them out with"),
    ],
)
def test_mistakes_stop_the_run_before_it_starts(capsys, tmp_path, pair, options, message):
    code, out, err = run(capsys, "restore", pair, "-o", tmp_path / "out", *options)
    assert code == 2
    assert message in " ".join(err.replace("│", " ").split())
    assert out == ""
    assert not list(tmp_path.glob("out/*"))
