"""The report as a document, as a page, and in comparison with another."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from flipnet.evaluation.catalogue import METRICS, SET_METRICS, choose
from flipnet.evaluation.comparison import compare_reports
from flipnet.evaluation.image_sets import Problem
from flipnet.evaluation.report import JSON_NAME, document, finite, read_report
from flipnet.evaluation.report_page import data_uri, keys_to_show, render_page, worst_first
from flipnet.evaluation.scoring import Part, RealSet, Scorer, load_metrics
from flipnet.evaluation.weights import MetricWeights
from flipnet.types import FlipnetError

NAMES = ["psnr_db", "gradient_energy_ratio"]


@pytest.fixture
def loaded():
    return load_metrics(*choose(NAMES), MetricWeights(), has_reference=True, has_real=True)


def made_part(shift=0.0, count=30, name="set"):
    rng = np.random.default_rng(0)
    difficulty = rng.normal(25, 3, count)
    scores = {
        "input": {"psnr_db": difficulty, "gradient_energy_ratio": np.full(count, 0.2)},
        "restored": {
            "psnr_db": difficulty + 1 + shift,
            "gradient_energy_ratio": np.linspace(0.5, 1.6, count),
        },
    }
    keys = tuple(f"face-{index}" for index in range(count))
    return Part(name, keys, scores, {"input": {}, "restored": {}}, {"restored": 0.25}, None)


def made_report(loaded, shift=0.0, hashes="a", **part):
    files = {"reference": {"location": "hq", "images": part.get("count", 30), "sha256": hashes}}
    return document(
        [made_part(shift, **part)],
        loaded,
        main="restored",
        seed=0,
        settings={"limit": None},
        files=files,
        problems=[Problem("bad.png", "is damaged", True)],
    )


def test_names_and_protocols_are_unique_and_every_metric_says_what_it_is():
    every = [*METRICS, *SET_METRICS]
    assert len({metric.name for metric in every}) == len({metric.protocol for metric in every}) == len(every)
    for metric in every:
        assert metric.label
        assert metric.source
        assert metric.range[0] < metric.range[1]
        assert metric.better in ("higher", "lower", "one")
        assert re.search(r"-\d+$", metric.protocol), metric.protocol


def test_an_unknown_metric_is_named_with_the_known_ones():
    with pytest.raises(FlipnetError, match=r"--metric fidd: is none of psnr_db, .*fid"):
        choose(["fidd"])


def test_the_document_holds_means_differences_and_where_it_comes_from(loaded):
    found = made_report(loaded)
    json.dumps(found, allow_nan=False)
    (part,) = found["parts"]
    restored = part["columns"]["restored"]
    assert restored["metrics"]["psnr_db"]["mean"] - part["columns"]["input"]["metrics"]["psnr_db"][
        "mean"
    ] == pytest.approx(1)
    assert restored["seconds"] == 0.25
    assert part["differences"]["input"]["psnr_db"]["verdict"] == "better"
    assert part["differences"]["input"]["gradient_energy_ratio"]["verdict"] == "better"
    assert found["packages"]["numpy"] == np.__version__
    assert [metric["protocol"] for metric in found["metrics"]] == [
        "psnr-rgb-crop0-1",
        "gradient-energy-ratio-1",
    ]
    assert found["problems"] == [{"image": "bad.png", "cause": "is damaged", "left_out": True}]


def test_numbers_that_json_lacks():
    assert finite({"a": float("nan"), "b": [1], "c": float("inf")}) == {"a": None, "b": [1], "c": "inf"}


def test_worst_pictures_by_every_kind_of_metric(loaded):
    found = made_report(loaded)
    (part,) = found["parts"]
    psnr, gradient = found["metrics"]
    psnrs = [row["columns"]["restored"]["psnr_db"] for row in part["scores"]]
    assert worst_first(part, "restored", psnr)[0] == f"face-{int(np.argmin(psnrs))}"
    # 0.5 and 1.6 are the ends; 1.6 is further from 1.
    assert worst_first(part, "restored", gradient)[:1] == ["face-29"]
    few = keys_to_show(part, "restored", found["metrics"], 2)
    assert few == {worst_first(part, "restored", psnr)[0], "face-29"}
    assert len(keys_to_show(part, "restored", found["metrics"], 500)) == 30


def test_the_page_is_one_file_that_asks_for_nothing_and_cannot_be_broken_out_of(loaded):
    found = made_report(loaded)
    found["parts"][0]["scores"][0]["key"] = "</script><script>alert(1)</script>"
    picture = data_uri(np.zeros((600, 300, 3), np.uint8))
    page = render_page(found, {"set": {"face-1": {"input": picture}}}, "a <b> & %%DATA%%")
    assert "<title>a &lt;b> &amp; %%DATA%%</title>" in page
    assert page.count("</script>") == 2
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    assert json.loads(data)["report"]["parts"][0]["scores"][0]["key"] == "</script><script>alert(1)</script>"
    outside = page.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|src=\"(?!data:)|@import|url\(", outside)


def test_pictures_are_small_webp_and_plots_whole_png(tmp_path):
    import base64
    from io import BytesIO

    for lossless, kind, size in ((False, "webp", (192, 384)), (True, "png", (300, 600))):
        head, _, body = data_uri(np.zeros((600, 300, 3), np.uint8), lossless=lossless).partition(",")
        assert head == f"data:image/{kind};base64"
        assert Image.open(BytesIO(base64.b64decode(body))).size == size


def test_two_runs_are_compared_picture_by_picture(loaded):
    found = compare_reports(made_report(loaded), made_report(loaded, shift=-0.5))
    (part,) = found["parts"]
    assert part["images"] == 30
    assert part["metrics"]["psnr_db"]["difference"] == pytest.approx(-0.5)
    assert part["metrics"]["psnr_db"]["verdict"] == "worse"
    assert part["metrics"]["gradient_energy_ratio"]["verdict"] == "equal"


def test_reports_of_different_pictures_or_protocols_are_not_compared(loaded):
    first = made_report(loaded)
    with pytest.raises(FlipnetError, match="different reference pictures"):
        compare_reports(first, made_report(loaded, hashes="b"))
    other = made_report(loaded)
    other["metrics"][0]["protocol"] = "psnr-y-crop4-1"
    found = compare_reports(first, other)
    assert found["not_compared"] == {"psnr_db": "protocols psnr-rgb-crop0-1 and psnr-y-crop4-1"}
    other["metrics"][1]["weights_sha256"] = "0" * 64
    with pytest.raises(FlipnetError, match="metric in common"):
        compare_reports(first, other)
    fewer = compare_reports(first, made_report(loaded, hashes="c", count=20))
    assert fewer["parts"][0]["images"] == 20
    assert fewer["remarks"] == ["the reports have 30 and 20 reference pictures"]
    with pytest.raises(FlipnetError, match="no part, picture or metric in common"):
        compare_reports(first, made_report(loaded, name="another"))


def test_a_file_that_is_no_report_is_named(tmp_path):
    with pytest.raises(FlipnetError, match=JSON_NAME):
        read_report(tmp_path)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(FlipnetError, match=r"x\.json: is no report"):
        read_report(tmp_path / "x.json")


def test_set_metrics_compare_with_the_real_set_or_the_references():
    distances = []
    metric = next(m for m in SET_METRICS if m.name == "frechet_dlib")

    def features(image):
        return image.reshape(-1, 3).mean(0).astype(float)

    loaded = load_metrics((), (), MetricWeights(), has_reference=True, has_real=True)
    loaded.of_sets.append((metric, features))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
    for real in (
        None,
        RealSet("shifted", 12, {"frechet_dlib": np.array([features(i) for i in images]) + 3.0}),
    ):
        scorer = Scorer("x", loaded, real)
        for index, image in enumerate(images):
            scorer.add(str(index), {"restored": image}, image)
        distances.append(scorer.result().set_scores["restored"]["frechet_dlib"])
    assert distances == pytest.approx([0, 27], abs=1e-6)
    scorer = Scorer("few", loaded)
    scorer.add("0", {"restored": images[0]}, images[0])
    assert np.isnan(scorer.result().set_scores["restored"]["frechet_dlib"])
