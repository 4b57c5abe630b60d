"""Which file every result goes to, and what is refused before anything runs."""

from pathlib import Path

import pytest

from flipnet.commands.outputs import Existing, Job, OutputNaming, plan_outputs
from flipnet.types import FlipnetError


def make(folder: Path, *names: str) -> None:
    """Make empty files: planning looks at names only."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def targets(plan, root: Path) -> dict[str, str]:
    return {job.source.name: job.target.relative_to(root).as_posix() for job in plan.jobs}


def test_folder_structure_is_mirrored(tmp_path):
    make(tmp_path / "in", "a.jpg", "deep/er/b.PNG", "deep/notes.txt", "ü/日本.webp")
    plan = plan_outputs([tmp_path / "in"], OutputNaming(tmp_path / "out"), Existing.FAIL)
    assert targets(plan, tmp_path / "out") == {
        "a.jpg": "a.jpg", "b.PNG": "deep/er/b.PNG", "日本.webp": "ü/日本.webp",
    }  # fmt: skip
    assert plan.failures == []


def test_suffix_and_format_name_the_output(tmp_path):
    make(tmp_path, "a.b.jpg")
    naming = OutputNaming(tmp_path / "out", suffix="_new", extension="png")
    plan = plan_outputs([tmp_path / "a.b.jpg"], naming, Existing.FAIL)
    assert targets(plan, tmp_path / "out") == {"a.b.jpg": "a.b_new.png"}


@pytest.mark.parametrize("name", ["a.bmp", "a.gif", "a.heic", "a"])
def test_read_only_formats_become_png(tmp_path, name):
    make(tmp_path, name)
    plan = plan_outputs([tmp_path / name], OutputNaming(tmp_path / "out"), Existing.FAIL)
    assert targets(plan, tmp_path / "out") == {name: "a.png"}


def test_one_file_can_name_its_output(tmp_path):
    make(tmp_path, "a.jpg")
    plan = plan_outputs([tmp_path / "a.jpg"], OutputNaming(tmp_path / "new.png"), Existing.FAIL)
    assert plan.jobs == [Job(tmp_path / "a.jpg", tmp_path / "new.png")]


@pytest.mark.parametrize(
    ("inputs", "naming", "words"),
    [
        (["a.jpg", "b.jpg"], OutputNaming(Path("new.png")), "not one file"),
        (["a.jpg"], OutputNaming(Path("new.gif")), "cannot be written"),
        (["a.jpg"], OutputNaming(Path("new.png"), suffix="_x"), "--suffix"),
    ],
)
def test_file_names_as_output_are_refused_where_they_make_no_sense(
    tmp_path, monkeypatch, inputs, naming, words
):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "a.jpg", "b.jpg")
    with pytest.raises(FlipnetError, match=words):
        plan_outputs([Path(name) for name in inputs], naming, Existing.FAIL)


def test_missing_and_empty_inputs_fail_and_the_rest_goes_on(tmp_path):
    make(tmp_path, "a.jpg", "empty/readme.txt")
    inputs = [tmp_path / "gone.jpg", tmp_path / "empty", tmp_path / "a.jpg"]
    plan = plan_outputs(inputs, OutputNaming(tmp_path / "out"), Existing.FAIL)
    assert [path.name for path, _ in plan.failures] == ["gone.jpg", "empty"]
    assert [job.source.name for job in plan.jobs] == ["a.jpg"]


def test_input_given_twice_is_done_once(tmp_path):
    make(tmp_path / "in", "a.jpg")
    plan = plan_outputs(
        [tmp_path / "in", tmp_path / "in" / "a.jpg"], OutputNaming(tmp_path / "out"), Existing.FAIL
    )
    assert len(plan.jobs) == 1


@pytest.mark.parametrize("given", ["in", "in/a.jpg"])
@pytest.mark.parametrize("existing", list(Existing))
def test_input_is_never_its_own_output(tmp_path, given, existing):
    make(tmp_path / "in", "a.jpg")
    with pytest.raises(FlipnetError, match="overwrite an input"):
        plan_outputs([tmp_path / given], OutputNaming(tmp_path / "in"), existing)


def test_input_is_not_overwritten_through_a_symlink(tmp_path):
    make(tmp_path / "in", "a.jpg")
    (tmp_path / "out").symlink_to(tmp_path / "in")
    with pytest.raises(FlipnetError, match="overwrite an input"):
        plan_outputs([tmp_path / "in"], OutputNaming(tmp_path / "out"), Existing.OVERWRITE)


def test_one_input_is_not_overwritten_by_another_ones_result(tmp_path):
    make(tmp_path, "x/a.jpg", "y/a.jpg")
    with pytest.raises(FlipnetError, match="overwrite an input"):
        plan_outputs([tmp_path / "x", tmp_path / "y"], OutputNaming(tmp_path / "y"), Existing.OVERWRITE)


def test_companion_files_do_not_overwrite_inputs(tmp_path):
    make(tmp_path, "in/a.jpg", "in/a_new_compare.jpg")
    naming = OutputNaming(tmp_path / "in", suffix="_new")
    inputs = [tmp_path / "in" / "a.jpg", tmp_path / "in" / "a_new_compare.jpg"]
    with pytest.raises(FlipnetError, match="overwrite an input"):
        plan_outputs(inputs, naming, Existing.OVERWRITE, side_files=True)


def test_same_output_for_two_inputs_is_refused(tmp_path):
    make(tmp_path / "in", "a.jpg", "a.png")
    plan_outputs([tmp_path / "in"], OutputNaming(tmp_path / "out"), Existing.FAIL)
    with pytest.raises(FlipnetError, match=r"a\.jpg and .*a\.png would write to the same place"):
        plan_outputs([tmp_path / "in"], OutputNaming(tmp_path / "out", extension="png"), Existing.FAIL)


def test_second_run_does_not_restore_results(tmp_path):
    make(tmp_path / "in", "a.jpg", "a_new.jpg", "a_new_compare.jpg", "a_new_face0_before.jpg", "out/a.jpg")
    beside = plan_outputs([tmp_path / "in"], OutputNaming(tmp_path / "in", "_new"), Existing.SKIP)
    assert [job.source.name for job in beside.skipped] == ["a.jpg"]
    assert "a_new.jpg" not in targets(beside, tmp_path / "in")
    below = plan_outputs([tmp_path / "in"], OutputNaming(tmp_path / "in" / "out"), Existing.SKIP)
    assert (tmp_path / "in" / "out" / "a.jpg") not in [job.source for job in below.jobs]


@pytest.mark.parametrize(
    ("existing", "counts"),
    [(Existing.FAIL, (0, 0, 1)), (Existing.SKIP, (0, 1, 0)), (Existing.OVERWRITE, (1, 0, 0))],
)
def test_existing_outputs(tmp_path, existing, counts):
    make(tmp_path, "a.jpg", "out/a.jpg")
    plan = plan_outputs([tmp_path / "a.jpg"], OutputNaming(tmp_path / "out"), existing)
    assert (len(plan.jobs), len(plan.skipped), len(plan.failures)) == counts


def test_companion_names():
    job = Job(Path("in/a.jpg"), Path("out/a_new.webp"))
    assert job.compare_path == Path("out/a_new_compare.webp")
    assert job.face_path(0, "before") == Path("out/a_new_face0_before.webp")
