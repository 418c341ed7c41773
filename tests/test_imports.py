"""Imports run one way: augment and models, which know nothing of each other, then pipeline's root, data, inference and
training, then what is run: tools, demo, benchmarks and the scripts."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BELOW = {
    "augment": set(),
    "models": set(),
    "pipeline": {"augment", "models"},
    "pipeline.data": {"augment", "pipeline"},
    "pipeline.inference": {"augment", "models", "pipeline", "pipeline.data"},
    "pipeline.training": {"augment", "models", "pipeline", "pipeline.data", "pipeline.inference"},
    "tools": {"augment", "models", "pipeline", "pipeline.data", "pipeline.inference", "tools.formats"},
    "tools.formats": {"pipeline"},
    "demo": {"augment", "pipeline", "pipeline.data", "pipeline.inference", "tools"},
    "demo.walkthrough": {"pipeline", "pipeline.data"},
}
PACKAGES = {name.split(".")[0] for name in BELOW}
FILES = [path for package in sorted(PACKAGES) for path in sorted((ROOT / package).rglob("*.py"))]
SCRIPTS = [ROOT / "hack_train.py", ROOT / "predict.py"]


def module_of(path: Path) -> str:
    """The full name of a file's module; of a package's `__init__.py` the package's."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def folder_of(module: str) -> str:
    """The folder that a module, or what is imported from it, lies in."""
    while module not in BELOW:
        module = module.rpartition(".")[0]
    return module


def imports_of(path: Path) -> set[str]:
    """Full names of what a file imports; those within the project as modules, whatever was named of them."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide where a thing lies"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else str(node.module) for name in inner}
    return names


def inner_imports(path: Path) -> set[str]:
    return {name for name in imports_of(path) if name.split(".")[0] in PACKAGES}


def test_every_folder_has_its_rule():
    assert {folder_of(name) for name in MODULES} == set(BELOW)
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in FILES}
    assert folders == set(BELOW), "a new folder needs a line in BELOW"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_folder_imports_only_what_is_below_it(path):
    folder = folder_of(module_of(path))
    assert {folder_of(name) for name in inner_imports(path)} <= BELOW[folder] | {folder}


def test_there_is_no_circle():
    below = {name: {other for other in inner_imports(path) if other != name} for name, path in MODULES.items()}
    while below:
        leaves = {name for name, others in below.items() if not others & below.keys()}
        assert leaves, f"these import each other: {sorted(below)}"
        below = {name: others for name, others in below.items() if name not in leaves}


@pytest.mark.parametrize("name", ["utils", "common", "helpers", "base", "manager"])
def test_nothing_has_a_name_that_says_nothing(name):
    assert not [path for path in FILES if name in (path.stem, path.parent.name)]


@pytest.mark.slow
def test_importing_does_nothing_else():
    """No seeding, no choice of device, no reading of arguments, no files."""
    modules = [name for name in MODULES if not name.endswith("__main__")]
    code = (
        "import os, sys, random, importlib; import numpy, torch; sys.argv = ['x', '--nonsense']\n"
        "def state():\n"
        "    return random.getstate(), str(numpy.random.get_state()), torch.initial_seed(), torch.get_num_threads()\n"
        "before = state()\n"
        f"[importlib.import_module(name) for name in {modules}]\n"
        "assert state() == before and not torch.cuda.is_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_figures_are_drawn_without_pyplot():
    """It keeps state, may look for a screen, and shows in a notebook what is only to be written."""
    for path in FILES:
        assert not re.search(r"^\s*(?:import|from)\b.*\bpyplot", path.read_text(), re.MULTILINE), path


def test_the_main_path_needs_neither_peers_nor_benchmarks():
    """Albumentations is looked for only when its transforms are asked for, in one place."""
    for path in [*FILES, *SCRIPTS]:
        if path.name != "foreign.py":
            roots = {name.split(".")[0] for name in imports_of(path)}
            assert not roots & {"albumentations", "kornia", "ttach", "benchmarks", "tests"}, path


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_defers_what_is_slow_to_import(script):
    """So that --help and a mistyped flag are answered at once."""
    code = f"import sys; import {script.stem}; assert not {{'torch', 'numpy', 'cv2', 'pandas'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
@pytest.mark.parametrize("module", ["tyro", "torch"])
def test_ctrl_c_while_a_script_imports_is_one_line(script, module):
    code = (
        "import runpy, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        f"sys.argv = [{str(script)!r}]\n"
        f"runpy.run_path({str(script)!r}, run_name='__main__')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (130, "\ninterrupted\n")
