"""Imports run one way: scripts, pipeline, then augment and models, which know nothing of each other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("augment", "models", "pipeline", "demo")
ALLOWED = {
    "augment": {"augment"},
    "models": {"models"},
    "pipeline": {"augment", "models", "pipeline"},
    "demo": {"augment", "demo", "pipeline"},
}
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).glob("*.py"))]


def imports_of(path: Path) -> set[str]:
    """Full names of the project's modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in PACKAGES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_package_imports_only_what_is_below_it(path):
    assert {name.split(".")[0] for name in imports_of(path)} <= ALLOWED[path.parent.name]


def test_there_is_no_circle():
    modules = {f"{path.parent.name}.{path.stem}": path for path in FILES if path.stem != "__init__"}
    below = {name: {other for other in imports_of(path) if other in modules} for name, path in modules.items()}
    while below:
        leaves = {name for name, others in below.items() if not others & below.keys()}
        assert leaves, f"these import each other: {sorted(below)}"
        below = {name: others for name, others in below.items() if name not in leaves}


@pytest.mark.parametrize("name", ["utils", "common", "helpers", "base", "manager"])
def test_nothing_has_a_name_that_says_nothing(name):
    assert not [path for path in FILES if path.stem == name]


def test_importing_does_nothing_else():
    """No seeding, no choice of device, no reading of arguments, no files."""
    modules = [f"{path.parent.name}.{path.stem}" for path in FILES if path.stem != "__main__"]
    code = (
        "import os, sys, random, importlib; import numpy, torch; sys.argv = ['x', '--nonsense']\n"
        "def state():\n"
        "    return random.getstate(), str(numpy.random.get_state()), torch.initial_seed(), torch.get_num_threads()\n"
        "before = state()\n"
        f"[importlib.import_module(name) for name in {modules}]\n"
        "assert state() == before and not torch.cuda.is_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_main_path_needs_neither_peers_nor_benchmarks():
    """Albumentations is looked for only when its transforms are asked for, in one place."""
    for path in [*FILES, ROOT / "hack_train.py", ROOT / "predict.py"]:
        if path.name == "foreign.py":
            continue
        tree = ast.parse(path.read_text())
        roots = {
            alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
        }
        roots |= {
            node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
        }
        assert not roots & {"albumentations", "kornia", "ttach", "benchmarks", "tests"}, path
