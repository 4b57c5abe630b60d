"""Programs at the door: gradio_client as docs/web.md shows it, and requests that mean no good."""

from __future__ import annotations

import json
import threading
import time
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest

from flipnet.images import read_photo
from flipnet.web.limits import Limits
from web.serving import LEFT, RIGHT, save, serving, tiny_engine

gradio_client = pytest.importorskip("gradio_client", reason="the extra 'web' is not installed")

LIMITS = Limits(queue=2, upload_mb=1, megapixels=1, photos=3)


@pytest.fixture(scope="module")
def engine():
    return tiny_engine(LIMITS)


@pytest.fixture(scope="module")
def url(engine):
    with serving(engine) as address:
        yield address


@pytest.fixture
def client(url, tmp_path):
    return gradio_client.Client(url, verbose=False, download_files=str(tmp_path / "results"))


@pytest.fixture(scope="module")
def photo(pair, tmp_path_factory):
    return save(pair, tmp_path_factory.mktemp("photos") / "Oma.png")


def send(path: Path):
    return gradio_client.handle_file(path)


def test_the_endpoints_are_the_documented_ones(client):
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(named) == {"/find_faces", "/restore", "/restore_batch", "/degrade", "/cancel"}
    names = [parameter["parameter_name"] for parameter in named["/restore"]["parameters"]]
    assert names == ["photo", "faces", "phi", "blend", "steps", "seed", "samples"]


def test_faces_are_listed(client, photo):
    faces = client.predict(send(photo), api_name="/find_faces")
    assert [face["index"] for face in faces] == [0, 1]
    assert all(face["restored"] and len(face["box_px"]) == 4 for face in faces)
    assert faces[0]["box_px"][0] > 260 > faces[1]["box_px"][2]


def test_the_chosen_face_of_a_photo_is_restored(client, photo, pair):
    _, summary, result, faces, report, uncertainty = client.predict(
        photo=send(photo), faces="1", seed=7, api_name="/restore"
    )
    assert Path(result).name == "Oma_restored.png"
    pixels = read_photo(Path(result)).pixels
    np.testing.assert_array_equal(pixels[RIGHT], pair[RIGHT])
    assert (pixels[LEFT] != pair[LEFT]).any()
    assert summary.startswith("- 1 of 2 faces restored")
    assert len(zipfile.ZipFile(faces).namelist()) == 2
    assert json.loads(Path(report).read_text())["photos"][0]["faces"][1]["seed"] == 8
    assert uncertainty is None


def test_a_batch_returns_a_zip_and_names_what_failed(client, photo, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a picture")
    archive, _, outcome = client.predict([send(photo), send(broken)], api_name="/restore_batch")
    assert zipfile.ZipFile(archive).namelist() == ["Oma_restored.png", "report.json"]
    assert "1 of 2 photos restored, 1 failed." in outcome
    assert "broken.jpg: failed; not a picture" in outcome


def test_a_face_is_degraded(client, photo):
    pictures, archive = client.predict(send(photo), variants=2, api_name="/degrade")
    assert [picture["caption"] for picture in pictures] == ["clean", "variant 0", "variant 1"]
    assert len(zipfile.ZipFile(archive).namelist()) == 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"faces": "5"}, "there is no face 5: 2 faces were found, 0 to 1"),
        ({"faces": "<script>"}, "faces '&lt;script&gt;'"),
        ({"phi": 9}, "phi: input should be less than or equal to 2"),
        ({"steps": 1e9}, "steps: "),
        ({"photo": None}, "choose a photo first"),
    ],
)
def test_mistakes_are_answered_with_a_sentence(client, photo, arguments, sentence):
    with pytest.raises(gradio_client.exceptions.AppError) as raised:
        client.predict(**{"photo": send(photo), **arguments}, api_name="/restore")
    assert sentence in str(raised.value)
    assert "/tmp" not in str(raised.value)


def test_a_photo_with_too_many_pixels_is_refused_with_a_sentence(client, tmp_path):
    large = save(np.zeros((1100, 1000, 3), np.uint8), tmp_path / "large.png")
    with pytest.raises(gradio_client.exceptions.AppError, match="more than 1 megapixels, the limit"):
        client.predict(send(large), api_name="/restore")


def test_cancelling_frees_the_server(client, engine, photo):
    passes = []
    engine.pipeline.unet.register_forward_hook(lambda *_: passes.append(1))
    job = client.submit(send(photo), steps=100, samples=8, api_name="/restore")
    while len(passes) < 3:
        time.sleep(0.01)
    client.predict(api_name="/cancel")
    with pytest.raises(gradio_client.exceptions.AppError, match="cancelled"):
        job.result(timeout=60)
    computed = len(passes)
    time.sleep(0.5)
    assert len(passes) == computed < 1600
    assert client.predict(send(photo), faces="0", api_name="/restore")[1].startswith("- 1 of 2")


def test_a_full_queue_refuses_politely_and_the_server_goes_on(url, engine, photo):
    clients = [gradio_client.Client(url, verbose=False) for _ in range(LIMITS.queue + 3)]
    jobs = []
    with engine.jobs.run("somebody else"):
        for client in clients:
            jobs.append(client.submit(send(photo), faces="0", api_name="/restore"))
            time.sleep(0.3)
    answers = []
    for job in jobs:
        try:
            answers.append(job.result(timeout=120)[1].split(" restored")[0])
        except Exception as error:  # noqa: BLE001 - whatever the client makes of HTTP 503
            answers.append(str(error))
    assert answers.count("- 1 of 2 faces") == 1 + LIMITS.queue
    assert sum("queue is full" in answer.lower() for answer in answers) == 2
    assert httpx.get(url).status_code == 200


# ------------------------------------------------------------------------------------- below gradio_client


def post(url: str, path: str, **kwargs):
    return httpx.post(f"{url}gradio_api/{path}", timeout=30, **kwargs)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../../etc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "file:///etc/passwd",
        "{root}/../../etc/passwd",
        "{root}/jobs/..%2f..%2f..%2fetc%2fpasswd",
        "{root}",
        "{cwd}/pyproject.toml",
        "/proc/self/environ",
    ],
)
def test_no_file_outside_the_workspace_is_served(url, engine, path):
    path = path.format(root=engine.workspace.root, cwd=Path.cwd())
    answer = httpx.get(f"{url}gradio_api/file={path}")
    assert answer.status_code in (403, 404)
    assert "root:" not in answer.text


def test_a_link_in_the_workspace_leads_nowhere(url, engine):
    (engine.workspace.root / "link.txt").symlink_to("/etc/passwd")
    assert httpx.get(f"{url}gradio_api/file={engine.workspace.root}/link.txt").status_code == 403


@pytest.mark.parametrize("path", ["/etc/passwd", "https://example.org/a.png", "{root}/../x.png"])
def test_no_file_but_an_upload_is_read(url, engine, path):
    payload = {"path": path.format(root=engine.workspace.root), "meta": {"_type": "gradio.FileData"}}
    answer = post(url, "call/restore", json={"data": [payload, "all", 1, 1, 0, 0, 1]})
    if answer.status_code == 200:
        events = httpx.get(f"{url}gradio_api/call/restore/{answer.json()['event_id']}", timeout=60).text
        assert "event: error" in events
        assert "root:" not in events
    else:
        assert answer.status_code == 400


def test_an_oversize_upload_is_refused_with_a_sentence(url):
    answer = post(url, "upload", files={"files": ("big.png", bytes(1_200_000))})
    assert answer.status_code == 413
    assert "exceeded maximum allowed size" in answer.text
    answer = post(url, "upload", files={"files": ("big.png", bytes(3_100_000))})
    assert (answer.status_code, answer.text) == (413, "More than 3 files of 1 MB were sent at once.")


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b"garbage"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\nabc',
        ),
        ("multipart/form-data; boundary=" + "x" * 500, b"--x"),
        ("application/json", b"{}"),
        ("text/plain", b"files=1"),
    ],
)
def test_bad_multipart_is_refused(url, content_type, content):
    answer = post(url, "upload", content=content, headers={"content-type": content_type})
    assert 400 <= answer.status_code < 500 or answer.json() == []
    assert httpx.get(url).status_code == 200


@pytest.mark.parametrize("name", ["../../x.png", "/etc/cron.d/x", "a\\..\\b.png", "..", "x/../../../y.png"])
def test_uploads_cannot_climb_out_by_name(url, engine, name):
    answer = post(url, "upload", files={"files": (name, b"content")})
    if answer.status_code == 200:
        (path,) = answer.json()
        assert Path(path).resolve().is_relative_to(engine.workspace.root)
    else:
        assert answer.status_code == 400


def test_script_in_a_file_name_stays_text(url, engine, pair, tmp_path):
    name = "<img src=x onerror=alert(1)>.png"
    content = save(pair, tmp_path / "x.png").read_bytes()
    (path,) = post(url, "upload", files={"files": (name, content)}).json()
    payload = {"path": path, "meta": {"_type": "gradio.FileData"}}
    answer = post(url, "call/restore_batch", json={"data": [[payload], 1, 1, 0, 0, 1]})
    events = httpx.get(f"{url}gradio_api/call/restore_batch/{answer.json()['event_id']}", timeout=60).text
    assert "event: complete" in events
    assert "<img" not in events.partition("event: complete")[2].rpartition("photos restored")[2]


def test_an_uploaded_page_is_not_shown_as_one(url):
    (path,) = post(url, "upload", files={"files": ("x.html", b"<script>alert(1)</script>")}).json()
    headers = httpx.get(f"{url}gradio_api/file={path}").headers
    assert headers["content-disposition"].startswith("attachment")
    assert headers["x-content-type-options"] == "nosniff"


def test_the_queue_cannot_be_passed_by(url, photo):
    assert post(url, "run/restore", json={"data": [None, "all", 1, 1, 0, 0, 1]}).status_code in (401, 404)
    assert post(url, "api/restore", json={"data": []}).status_code == 404


def test_many_bad_requests_at_once_do_no_harm(url):
    def attack() -> None:
        for content in (b"{", b"[]", b'{"data": 5}', b'{"fn_index": -1, "data": [], "session_hash": "x"}'):
            post(url, "queue/join", content=content, headers={"content-type": "application/json"})

    threads = [threading.Thread(target=attack) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert httpx.get(url).status_code == 200
