import numpy as np
import pytest
from PIL import Image

from flipnet.evaluation.image_sets import INPUT, REFERENCE, bring_together
from flipnet.types import FlipnetError

RED, GRAY = (200, 30, 40), (90, 90, 90)


def save(folder, name, colour=RED, size=(32, 32), mode="RGB"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


@pytest.fixture
def folders(tmp_path):
    for name in ("reference", "input", "restored"):
        for index in range(4):
            save(tmp_path / name, f"{index}.png")
    return {name: tmp_path / name for name in ("reference", "input", "restored")}


def read_all(sets):
    return {key: images for key in list(sets.keys) if (images := sets.read(key)) is not None}


def test_pictures_are_paired_by_name_whatever_the_extension(folders):
    (folders["restored"] / "0.png").unlink()
    save(folders["restored"], "0.webp")
    sets = bring_together(folders)
    found = read_all(sets)
    assert list(found) == ["0", "1", "2", "3"]
    assert list(found["0"]) == [REFERENCE, INPUT, "restored"]
    assert sets.problems == []


def test_every_misfit_is_named_and_the_rest_is_read(folders):
    restored = folders["restored"]
    (restored / "0.png").write_bytes(b"no picture")
    save(restored, "1.png", size=(16, 32))
    save(restored, "2.png", colour=(*RED, 100), mode="RGBA")
    save(restored, "extra.png")
    save(restored, "3.webp")
    save(folders["reference"], "alone.png")
    sets = bring_together(folders)
    assert list(read_all(sets)) == sets.keys == ["3"]
    causes = {problem.image.rpartition("/")[2]: problem.cause for problem in sets.problems}
    assert all(problem.left_out for problem in sets.problems)
    assert "not a picture" in causes["0.png"]
    assert causes["1.png"] == "is 16x32, but 32x32 is expected"
    assert "transparent" in causes["2.png"]
    assert causes["extra.png"] == "has no picture of that name in reference and input"
    assert causes["alone.png"] == "has no picture of that name in input and restored"
    assert "same name" in causes["3.webp"] or "same name" in causes["3.png"]


def test_gray_and_opaque_alpha_are_measured_and_gray_is_remarked_on(folders):
    save(folders["restored"], "0.png", colour=90, mode="L")
    save(folders["restored"], "1.png", colour=(*RED, 255), mode="RGBA")
    sets = bring_together(folders)
    assert len(read_all(sets)) == 4
    (problem,) = sets.problems
    assert (problem.cause, problem.left_out) == ("is gray, its reference is not", False)


def test_a_smaller_input_is_enlarged_and_it_is_said(folders):
    save(folders["input"], "2.png", size=(8, 8))
    sets = bring_together(folders)
    assert sets.read("2")[INPUT].shape == (32, 32, 3)
    (problem,) = sets.problems
    assert problem.cause == "8x8 resized to 32x32 (Lanczos)"
    assert not problem.left_out


def test_a_common_size_can_be_asked_for(folders):
    save(folders["restored"], "1.png", size=(16, 16))
    sets = bring_together(folders, size_px=24)
    assert {pixels.shape for images in read_all(sets).values() for pixels in images.values()} == {(24, 24, 3)}
    assert sets.problems == []


def test_a_limit_spreads_over_the_names(folders):
    assert bring_together(folders, limit=2).keys == ["0", "2"]


def test_the_hash_follows_names_and_bytes_not_the_folder(folders, tmp_path):
    plain = bring_together(folders)
    assert plain.list_hash(REFERENCE) == plain.list_hash(INPUT)
    save(folders["input"], "1.png", colour=GRAY)
    assert plain.list_hash(REFERENCE) != plain.list_hash(INPUT)
    assert bring_together(folders, limit=2).list_hash(REFERENCE) != plain.list_hash(REFERENCE)


def test_folders_without_a_common_name_are_an_error_with_examples(folders, tmp_path):
    save(tmp_path / "other", "x_restored.png")
    with pytest.raises(FlipnetError, match=r"no name is in every folder.*'0' \(reference\).*'x_restored'"):
        bring_together({REFERENCE: folders["reference"], "restored": tmp_path / "other"})


def test_16_bits_are_read_as_8(folders):
    deep = np.full((32, 32), 257 * 200, np.uint16)
    Image.fromarray(deep).save(folders["restored"] / "0.png")
    sets = bring_together({"restored": folders["restored"]})
    assert sets.read("0")["restored"].dtype == np.uint8
    assert sets.read("0")["restored"][0, 0].tolist() == [200, 200, 200]
