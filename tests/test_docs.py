"""The documentation holds what it promises: links, options, code and pictures."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from flipnet.cli import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
README = ROOT / "README.md"
IDS = [page.relative_to(ROOT).as_posix() for page in [*PAGES, README]]


def links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    text = re.sub(r"`[^`]*`", "", text)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def slug(heading: str) -> str:
    plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
    return re.sub(r"[\s]+", "-", plain)


@pytest.mark.parametrize("page", [*PAGES, README], ids=IDS)
def test_links_lead_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{target} is missing"
        if anchor and file.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, target


@pytest.mark.parametrize("page", [*PAGES, README], ids=IDS)
def test_python_in_the_docs_is_python(page):
    for block in code_blocks(page, "python"):
        ast.parse(block)


def options_of(command: typer.core.TyperCommand) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


COMMANDS = typer.main.get_command(app).commands
OPTIONS = {name: options_of(command) | {"--help", "-h"} for name, command in COMMANDS.items()}
for name, command in getattr(COMMANDS["evaluate"], "commands", {}).items():
    OPTIONS[f"evaluate {name}"] = options_of(command) | {"--help", "-h"}
EVERY_OPTION = set().union(*OPTIONS.values())
FOREIGN = {"--strict", "--net", "--map-root-user", "--no-index", "--find-links", "--moving", "--signal"}
"""Options of other programs and of benchmarks that the pages mention."""


def command_lines(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = "\n".join(re.findall(r"```(?:sh|bash)?\n(.*?)```", text, flags=re.DOTALL))
    indented = "\n".join(line.strip() for line in text.splitlines() if line.startswith("    flipnet "))
    found = re.findall(r"(?:^|[\s/`])flipnet ((?:[a-z]+) .*)$", f"{fenced}\n{indented}", flags=re.MULTILINE)
    return [line.partition("#")[0] for line in found]


@pytest.mark.parametrize("page", [*PAGES, README], ids=IDS)
def test_command_lines_use_options_their_command_has(page):
    for line in command_lines(page):
        words = line.split()
        name = " ".join(words[:2]) if " ".join(words[:2]) in OPTIONS else words[0]
        if name == "evaluate":
            name = "evaluate restoration"  # the short form
        assert name in OPTIONS, f"there is no command {name}: {line}"
        used = {word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word)}
        assert used <= OPTIONS[name], f"{used - OPTIONS[name]} in: flipnet {line}"


@pytest.mark.parametrize("page", [*PAGES, README], ids=IDS)
def test_every_option_named_in_the_text_exists(page):
    named = set(re.findall(r"`(--[a-z][a-z-]+)(?![\w-])", page.read_text(encoding="utf-8")))
    assert named - EVERY_OPTION - FOREIGN == set()


def test_reference_pages_name_modules_that_exist():
    for page in (DOCS / "reference").glob("*.md"):
        for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
            assert importlib.util.find_spec(name) is not None, name


def test_every_command_has_its_line_in_the_reference():
    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"`flipnet {name}`" not in text] == []


def test_pictures_are_small_and_made_by_the_committed_command():
    for picture in (DOCS / "images" / "site").iterdir():
        assert picture.suffix == ".webp"
        assert picture.stat().st_size <= 150_000
        assert f'"{picture.stem}"' in (ROOT / "benchmarks" / "docs_pictures.py").read_text(encoding="utf-8")


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    pytest.importorskip("mkdocs", reason="the site needs mkdocs (extra: docs)")
    pytest.importorskip("material", reason="the site needs mkdocs-material (extra: docs)")
    pytest.importorskip("mkdocstrings", reason="the site needs mkdocstrings (extra: docs)")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    fetched = re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"(https?://[^\"]+)\"", page)
    assert fetched == []
