"""The layout holds: imports go down the layers, in no cycle, and the light parts stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "flipnet"

# Lower never imports higher. What is on one line may import each other, but not in a cycle.
LAYERS = (
    ("types",),
    ("images", "provenance", "config", "checkpoints"),
    ("data", "faces"),
    ("models",),
    ("pipelines", "video"),
    ("training", "evaluation", "distributed"),
    ("commands", "cli", "web", "__main__"),
)
LAYER_OF = {name: level for level, names in enumerate(LAYERS) for name in names}


def module_name(path: Path) -> str:
    parts = ("flipnet", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(path: Path) -> set[str]:
    """The flipnet modules a file names in any import, also one inside a function or under TYPE_CHECKING."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name not in MODULES and "." in name:
                name = name.rpartition(".")[0]
            if name in MODULES:
                found.add(name)
    return found


IMPORTS = {name: imports_of(path) for name, path in MODULES.items()}


def test_every_module_has_a_layer():
    tops = {name.split(".")[1] for name in MODULES if name != "flipnet"}
    assert tops <= LAYER_OF.keys()


@pytest.mark.parametrize("module", [name for name in MODULES if name != "flipnet"])
def test_imports_go_down(module):
    level = LAYER_OF[module.split(".")[1]]
    upward = {
        other for other in IMPORTS[module] if other != "flipnet" and LAYER_OF[other.split(".")[1]] > level
    }
    assert not upward


def test_no_import_cycles():
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module in finished:
            return
        for other in IMPORTS[module]:
            # A package's __init__ may collect names from its own modules, which see it as their parent only.
            if other != module and not module.startswith(f"{other}."):
                visit(other, (*path, module))
        finished.add(module)

    for module in MODULES:
        visit(module, ())


def test_nothing_imports_opencv():
    guilty = [name for name, path in MODULES.items() if "import cv2" in path.read_text(encoding="utf-8")]
    assert guilty == []


@pytest.mark.parametrize("statement", ["import flipnet", "import flipnet.types", "import flipnet.cli"])
def test_light_imports_stay_light(statement):
    heavy = "{'torch', 'diffusers', 'transformers', 'peft', 'cv2', 'scipy', 'skimage', 'onnxruntime'}"
    code = f"{statement}; import sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_there():
    import flipnet

    assert set(flipnet.__all__) == set(flipnet._HOMES)
    assert all(getattr(flipnet, name) is not None for name in flipnet.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        flipnet.nothing  # noqa: B018
