"""The page in headless Chromium, from upload to download, at a desk's and at a telephone's width."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from flipnet.images import read_photo
from web.serving import LEFT, RIGHT, save, serving, tiny_engine

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
DESK, TELEPHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PATIENCE_MS = 120_000

if CHROMIUM is None:
    pytest.skip("there is no chromium on this machine", allow_module_level=True)


@pytest.fixture(scope="module")
def engine():
    return tiny_engine()


@pytest.fixture(scope="module")
def url(engine):
    with serving(engine) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, url):
    """Open the page; when the test is over, no request has left the server and no script has failed."""
    pages, requests, faults = [], [], []

    def open_at(size):
        page = browser.new_page(viewport=size, accept_downloads=True)
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(f"dialog {dialog.message}"))
        page.goto(url)
        page.get_by_role("button", name="Restore", exact=True).wait_for()
        pages.append(page)
        return page

    yield open_at
    for page in pages:
        page.close()
    assert faults == []
    assert [address for address in requests if not address.startswith((url, "data:", "blob:"))] == []


@pytest.fixture(scope="module")
def photo(pair, tmp_path_factory):
    return save(pair, tmp_path_factory.mktemp("photos") / "Oma.png")


def choose(page, photo: Path) -> None:
    page.locator("#restore-photo input[type=file]").set_input_files(photo)
    page.get_by_label("face 1").wait_for()


def shoot(page, name: str) -> None:
    """Keep a picture of the page where FLIPNET_SCREENSHOTS names a folder."""
    folder = os.environ.get("FLIPNET_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def saved(page, button: str) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    return Path(download.value.path()).rename(
        Path(download.value.path()).parent / download.value.suggested_filename
    )


@pytest.mark.parametrize(("name", "size"), [("desk", DESK), ("telephone", TELEPHONE)])
def test_one_of_two_faces_is_chosen_restored_compared_and_saved(open_page, photo, pair, name, size):
    page = open_page(size)
    shoot(page, f"{name}-empty")
    choose(page, photo)
    assert page.get_by_label("face 0").is_checked()
    page.get_by_label("face 1").uncheck()
    page.get_by_role("button", name="Restore", exact=True).click()
    page.get_by_text("1 of 2 faces restored").wait_for()
    handle = page.locator("#before-after .handle, #before-after .outer").first
    handle.wait_for()
    before = handle.bounding_box()
    page.mouse.move(before["x"] + before["width"] / 2, before["y"] + before["height"] / 2)
    page.mouse.down()
    page.mouse.move(before["x"] + before["width"] / 2 + 60, before["y"] + before["height"] / 2, steps=4)
    page.mouse.up()
    assert handle.bounding_box()["x"] - before["x"] == pytest.approx(60, abs=12)
    page.wait_for_timeout(500)
    shoot(page, f"{name}-restored")
    result = saved(page, "Save photo")
    assert result.name == "Oma_restored.png"
    pixels = read_photo(result).pixels
    np.testing.assert_array_equal(pixels[LEFT], pair[LEFT])
    assert (pixels[RIGHT] != pair[RIGHT]).any()
    assert saved(page, "Save faces").suffix == ".zip"
    assert saved(page, "Save report").suffix == ".json"
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0


def test_the_page_says_model_licence_device_and_that_a_face_is_no_evidence(open_page):
    text = open_page(DESK).locator("body").inner_text()
    assert "Model tiny (licence: not known here" in text
    assert "on cpu" in text
    assert "plausible reconstruction, not evidence" in text


def test_everything_can_be_done_from_the_keyboard(open_page, photo):
    page = open_page(DESK)
    choose(page, photo)
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "document.activeElement.getAttribute('aria-label') || document.activeElement.innerText"
                " || document.activeElement.type || ''"
            ).strip()
        )
        if reached[-1] == "Restore" and "Restore" not in reached[:-1] and len(reached) > 5:
            break
    page.keyboard.press("Enter")
    page.get_by_text("2 of 2 faces restored").wait_for()
    for name in (
        "Batch",
        "Degrade",
        "Upload file",
        "Paste from clipboard",
        "Try the sample photo",
        "checkbox",
    ):
        assert name in reached


def test_cancel_stops_the_work(open_page, engine, photo):
    page = open_page(DESK)
    choose(page, photo)
    passes = []
    hook = engine.pipeline.unet.register_forward_hook(lambda *_: passes.append(1))
    page.get_by_role("button", name="Settings").first.click()
    page.get_by_label("number input for Denoising steps").first.fill("50")
    page.get_by_label("number input for Samples").first.fill("8")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Restore", exact=True).click()
    while len(passes) < 3:
        page.wait_for_timeout(20)
    page.get_by_role("button", name="Cancel").first.click()
    while engine.jobs._of_session:
        page.wait_for_timeout(20)
    computed = len(passes)
    page.wait_for_timeout(500)
    hook.remove()
    # Two faces of 8 samples in batches of 4, 50 steps and one pass for the condition each.
    assert len(passes) == computed < 2 * 2 * 51


def test_leaving_the_page_stops_the_work(open_page, engine, photo):
    page, other = open_page(DESK), open_page(DESK)
    choose(page, photo)
    page.get_by_role("button", name="Settings").first.click()
    page.get_by_label("number input for Denoising steps").first.fill("50")
    page.get_by_label("number input for Samples").first.fill("8")
    page.keyboard.press("Tab")
    passes = []

    def count(*_):
        # All passes together then take ten seconds, however small the network.
        passes.append(1)
        time.sleep(0.05)

    hook = engine.pipeline.unet.register_forward_hook(count)
    page.get_by_role("button", name="Restore", exact=True).click()
    while len(passes) < 3:
        page.wait_for_timeout(20)
    page.goto("about:blank")
    while engine.jobs._of_session:
        other.wait_for_timeout(20)
    hook.remove()
    assert len(passes) < 2 * 2 * 51


def test_a_photo_that_cannot_be_read_is_answered_with_a_sentence(open_page, tmp_path):
    page = open_page(DESK)
    broken = tmp_path / "<img src=x onerror=alert(1)>.png"
    broken.write_bytes(b"not a picture")
    page.locator("#restore-photo input[type=file]").set_input_files(broken)
    page.get_by_text("not a picture, or of a format that is not supported").wait_for()
    shoot(page, "broken")


def test_a_batch_with_a_broken_file_and_variants_of_a_face(open_page, photo, tmp_path):
    page = open_page(TELEPHONE)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a picture")
    page.get_by_role("tab", name="Batch").click()
    page.locator("#batch-photos input[type=file]").set_input_files([photo, broken])
    page.get_by_text("broken").first.wait_for()
    page.wait_for_timeout(500)
    page.get_by_role("button", name="Restore all").click()
    page.get_by_text("1 of 2 photos restored, 1 failed.").wait_for()
    assert saved(page, "Save all (zip)").name == "restored.zip"
    shoot(page, "telephone-batch")
    page.get_by_role("tab", name="Degrade").click()
    page.locator("#degrade-photo input[type=file]").set_input_files(photo)
    page.wait_for_timeout(500)
    page.get_by_role("button", name="Degrade", exact=True).click()
    page.get_by_text("variant 3").wait_for()
    page.wait_for_timeout(500)
    shoot(page, "telephone-degrade")
