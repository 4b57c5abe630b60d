"""The page: three tabs in gradio, each button an endpoint for programs too."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from flipnet import __version__
from flipnet.commands.faces import face_as_json
from flipnet.provenance import NOT_EVIDENCE
from flipnet.types import FlipnetError
from flipnet.web import degrading, restoring
from flipnet.web.engine import Engine, OnProgress
from flipnet.web.jobs import JobStoppedError
from flipnet.web.options import DegradeOptions, RestoreOptions
from flipnet.web.sentences import list_of, summary_of

# One job has the model at a time, whichever button started it; looking for faces does not wait for it.
MODEL: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "preprocess": False}
FACES: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "faces", "preprocess": False}
AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

PROGRESS = gr.Progress()
"""Default argument that makes gradio show a bar; it tells calls apart itself."""

NARROW_PX = 80
"""Least width of buttons, so that three stand side by side on a telephone."""


def build_page(engine: Engine) -> gr.Blocks:
    """Return the page, with endpoints `find_faces`, `restore`, `restore_batch`, `degrade`, `cancel`."""
    keep = int(engine.workspace.limits.keep_seconds)
    with gr.Blocks(title="flipnet", analytics_enabled=False, delete_cache=(60, keep)) as page:
        gr.Markdown(_introduction(engine))
        gr.Markdown(f"**{NOT_EVIDENCE}**", elem_id="notice")
        with gr.Tab("Photo"):
            _photo_tab(engine)
        with gr.Tab("Batch"):
            _batch_tab(engine)
        if engine.can_degrade:
            with gr.Tab("Degrade"):
                _degrade_tab(engine)
        page.unload(_canceller(engine))
    return page


def _introduction(engine: Engine) -> str:
    limits = engine.workspace.limits
    return (
        "# flipnet\nRestores the faces of old, small and blurred photos. "
        f"Model **{html.escape(engine.model_name)}** (licence: {engine.licence}) "
        f"on **{engine.device}**, flipnet {__version__}. "
        f"Photos up to {limits.upload_mb:g} MB and {limits.megapixels:g} megapixels; they stay on this server "
        f"and are deleted after {limits.keep_seconds / 60:g} minutes."
    )


def _photo_tab(engine: Engine) -> None:
    with gr.Row():
        with gr.Column():
            photo = _photo_input("Photo", "photo", "restore-photo")
            sample = gr.Button("Try the sample photo", size="sm")
            found = gr.Gallery(
                label="Faces found", columns=4, height="auto", object_fit="contain", interactive=False,
                buttons=["fullscreen"], visible=False, elem_classes="flat",
            )  # fmt: skip
            chosen = gr.CheckboxGroup(label="Restore these faces", visible=False)
            faces = gr.Textbox("all", label="faces", visible=False)
            settings = _restore_settings(engine)
            go, stop = _go_and_stop("Restore")
        with gr.Column():
            slider = gr.ImageSlider(
                label="Before and after",
                type="filepath",
                format="png",
                interactive=False,
                max_height=600,
                elem_id="before-after",
            )
            summary = gr.Markdown()
            with gr.Row(visible=False) as downloads:
                files = [_save_button(what) for what in ("photo", "faces", "report")]
            uncertainty = gr.Image(
                label="What was invented", type="filepath", interactive=False, visible=False,
                buttons=["fullscreen"],
            )  # fmt: skip

    def show_sample() -> str:
        return str(restoring.sample(engine))

    def find(photo: Any) -> tuple[Any, Any, str]:
        hidden = gr.update(visible=False, value=None)
        if photo is None:
            return hidden, gr.update(visible=False, choices=[], value=[]), "all"
        with shown_to_visitor(engine):
            return _shown_faces(restoring.find_faces(engine, _path(photo)))

    def restore(
        photo: Any, faces: Any, phi: Any, blend: Any, steps: Any, seed: Any, samples: Any,
        request: gr.Request, progress: gr.Progress = PROGRESS,
    ) -> tuple[Any, ...]:  # fmt: skip
        """Restore the faces of a photo. faces: "all", "largest", "center" or numbers like "0,2"."""
        with shown_to_visitor(engine):
            options = RestoreOptions.checked(
                faces=faces, phi=phi, blend=blend, steps=steps, seed=seed, samples=samples
            )
            done = engine.in_one_thread(
                restoring.restore, engine, _session(request), _path(photo), options, _bar(progress)
            )
        pictures = (str(done.before), str(done.after))
        downloads = (str(done.photo), str(done.faces), str(done.report))
        return pictures, summary_of(done.record), *downloads, done.uncertainty and str(done.uncertainty)

    def find_faces(photo: Any) -> list[dict[str, Any]]:
        """List a photo's faces: index, box, landmarks, score, and whether they would be restored."""
        with shown_to_visitor(engine):
            found = restoring.find_faces(engine, _path(photo))
        numbered = enumerate(zip(found.faces, found.reasons, strict=True))
        return [face_as_json(index, face, reason) for index, (face, reason) in numbered]

    gr.Button(visible=False).click(find_faces, photo, gr.JSON(visible=False), api_name="find_faces", **FACES)
    sample.click(show_sample, None, photo, queue=False, api_visibility="private")
    photo.change(find, photo, [found, chosen, faces], api_visibility="private", **FACES)
    chosen.change(None, chosen, faces, js="(chosen) => chosen.join(',')")
    run = go.click(
        restore, [photo, faces, *settings], [slider, summary, *files, uncertainty], api_name="restore",
        show_progress_on=slider, **MODEL,
    )  # fmt: skip
    run.success(
        lambda samples: (gr.update(visible=True), gr.update(visible=samples > 1)),
        settings[-1], [downloads, uncertainty], **AT_ONCE,
    )  # fmt: skip
    stop.click(_canceller(engine), None, None, queue=False, cancels=[run], api_name="cancel")


def _batch_tab(engine: Engine) -> None:
    with gr.Row():
        with gr.Column():
            photos = gr.File(
                label="Photos", file_count="multiple", file_types=["image"], elem_id="batch-photos"
            )
            settings = _restore_settings(engine)
            go, stop = _go_and_stop("Restore all")
        with gr.Column():
            summary = gr.Markdown()
            with gr.Row(visible=False) as downloads:
                files = [_save_button(what) for what in ("all (zip)", "report")]

    def restore_batch(
        photos: Any, phi: Any, blend: Any, steps: Any, seed: Any, samples: Any,
        request: gr.Request, progress: gr.Progress = PROGRESS,
    ) -> tuple[str, str, str]:  # fmt: skip
        """Restore every face of several photos: a zip of results, the report, and a list of what happened."""
        with shown_to_visitor(engine):
            options = RestoreOptions.checked(phi=phi, blend=blend, steps=steps, seed=seed, samples=samples)
            paths = [_path(photo) or "" for photo in photos or ()]
            done = engine.in_one_thread(
                restoring.restore_batch, engine, _session(request), paths, options, _bar(progress)
            )
        return str(done.archive), str(done.report), list_of(done.records)

    run = go.click(
        restore_batch, [photos, *settings], [*files, summary], api_name="restore_batch",
        show_progress_on=summary, **MODEL,
    )  # fmt: skip
    run.success(lambda: gr.update(visible=True), None, downloads, **AT_ONCE)
    stop.click(_canceller(engine), None, None, queue=False, cancels=[run], api_visibility="private")


def _degrade_tab(engine: Engine) -> None:
    with gr.Row():
        with gr.Column():
            photo = _photo_input("Clean face", "sharp portrait", "degrade-photo")
            find_face = gr.Checkbox(True, label="Find the face (untick for an aligned face crop)")
            variants = gr.Slider(1, 16, 4, step=1, label="Variants")
            with gr.Accordion("Settings", open=False):
                phi, steps, seed = _mode_settings(engine.steps["degradation"])
            go, stop = _go_and_stop("Degrade")
        with gr.Column():
            pictures = gr.Gallery(
                label="Clean face and its variants", columns=3, height="auto", object_fit="contain",
                interactive=False, buttons=["fullscreen"], elem_classes="flat",
            )  # fmt: skip
            with gr.Row(visible=False) as downloads:
                archive = _save_button("all (zip)")

    def degrade(
        photo: Any, variants: Any, find_face: Any, phi: Any, steps: Any, seed: Any,
        request: gr.Request, progress: gr.Progress = PROGRESS,
    ) -> tuple[list[tuple[str, str]], str]:  # fmt: skip
        """Make realistic bad versions of a clean face: pictures (the clean one first) and a zip of them."""
        with shown_to_visitor(engine):
            options = DegradeOptions.checked(
                variants=variants, find_face=find_face, phi=phi, steps=steps, seed=seed
            )
            done = engine.in_one_thread(
                degrading.degrade, engine, _session(request), _path(photo), options, _bar(progress)
            )
        shown = [(str(done.face), "clean")]
        shown += [(str(path), f"variant {number}") for number, path in enumerate(done.variants)]
        return shown, str(done.archive)

    run = go.click(
        degrade, [photo, variants, find_face, phi, steps, seed], [pictures, archive], api_name="degrade",
        show_progress_on=pictures, **MODEL,
    )  # fmt: skip
    run.success(lambda: gr.update(visible=True), None, downloads, **AT_ONCE)
    stop.click(_canceller(engine), None, None, queue=False, cancels=[run], api_visibility="private")


def _restore_settings(engine: Engine) -> list[gr.components.Component]:
    with gr.Accordion("Settings", open=False):
        phi, steps, seed = _mode_settings(engine.steps["restoration"])
        blend = gr.Slider(
            0, 1, 1, step=0.05, label="Blend", info="0 keeps the photo, 1 is the restored face."
        )
        samples = gr.Slider(
            1, 8, 1, step=1, label="Samples",
            info="More than one: draws several restorations and shows where they differ.",
        )  # fmt: skip
    return [phi, blend, steps, seed, samples]


def _mode_settings(default_steps: int) -> tuple[gr.Slider, gr.Slider, gr.Number]:
    phi = gr.Slider(
        0, 2, 1, step=0.05, label="Boosting weight φ",
        info="0 invents freely, 1 is balanced, 2 keeps to the picture.",
    )  # fmt: skip
    steps = gr.Slider(
        0, 50, 0, step=1, label="Denoising steps", info=f"0 is the model's own number, {default_steps}."
    )
    seed = gr.Number(
        0, label="Seed", precision=0, minimum=0, maximum=2**32 - 1, info="Same seed, same result."
    )
    return phi, steps, seed


def _photo_input(label: str, what: str, elem_id: str) -> gr.Image:
    return gr.Image(
        label=label, type="filepath", sources=["upload", "clipboard"], height=320, buttons=[], elem_id=elem_id,
        placeholder=f"Drop a {what} here, paste it, or click to choose",
    )  # fmt: skip


def _go_and_stop(label: str) -> tuple[gr.Button, gr.Button]:
    with gr.Row():
        go = gr.Button(label, variant="primary", scale=2, min_width=NARROW_PX)
        return go, gr.Button("Cancel", variant="stop", min_width=NARROW_PX)


def _save_button(what: str) -> gr.DownloadButton:
    return gr.DownloadButton(f"Save {what}", size="md", min_width=NARROW_PX)


def _shown_faces(found: restoring.FoundFaces) -> tuple[Any, Any, str]:
    captions = [f"face {i}" + (f", {reason}" if reason else "") for i, reason in enumerate(found.reasons)]
    pictures = [(str(found.picture), "photo"), *zip(map(str, found.thumbnails), captions, strict=True)]
    ticked = [str(index) for index, reason in enumerate(found.reasons) if reason is None]
    choices = [(caption, str(index)) for index, caption in enumerate(captions)]
    return (
        gr.update(visible=True, value=pictures),
        gr.update(visible=True, choices=choices, value=ticked),
        ",".join(ticked),
    )


@contextmanager
def shown_to_visitor(engine: Engine) -> Iterator[None]:
    """Turn errors meant for people into gradio's, which shows their sentence; others stay in the server's log."""
    try:
        yield
    except (FlipnetError, JobStoppedError) as error:
        # Gradio puts messages into the page as HTML.
        sentence = html.escape(engine.workspace.for_visitor(str(error)), quote=False)
        title = "Stopped" if isinstance(error, JobStoppedError) else "Not done"
        raise gr.Error(sentence, title=title, print_exception=False) from error


def _canceller(engine: Engine) -> Callable[[gr.Request], None]:
    def cancel(request: gr.Request) -> None:
        """Stop the caller's own jobs; nothing further is computed for them."""
        engine.jobs.cancel(_session(request))

    return cancel


def _session(request: gr.Request) -> str:
    return request.session_hash or ""


def _path(payload: Any) -> Path | None:
    """The uploaded file's path out of gradio's file data; the workspace checks where it lies."""
    path = payload.get("path") if isinstance(payload, dict) else None
    return Path(path) if isinstance(path, str) else None


def _bar(progress: gr.Progress) -> OnProgress:
    def show(done: int, total: int, what: str) -> None:
        progress((done, total), unit=what)

    return show
