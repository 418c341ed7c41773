"""The pages that users read: each command on them is one that the parsers take, each flag is there, each link leads
somewhere. Nothing is computed."""

import dataclasses
import importlib
import io
import json
import re
import shlex
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import tyro

import pipeline.cli
from pipeline.command import Command, parse_command
from pipeline.inference.options import PredictOptions
from tests.scripts import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOK = ROOT / "docs/notebook.ipynb"
CODE = re.compile(r"```[a-z]*\n(?P<block>.*?)```|`(?P<inline>[^`\n]+)`", re.DOTALL)
COMMAND = re.compile(
    r"(?:python|torchrun)\b.*?(?P<script>hack_train\.py|predict\.py|-m (?:tools|demo)[\w.]*)(?P<rest>.*)"
)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
STANDS_FOR = {"FORMAT": "coco"}  # where a word of a page is none that the parser can take
OF_OTHERS = {"--max-restarts", "--rdzv-id", "--rdzv-endpoint", "--nnodes"}  # flags of torchrun
NO_GUIDES = {"experiments.md", "experiments-archive.md", "architecture.md"}  # which tell of flags that are gone, too


def snippets(page: Path) -> list[str]:
    """The lines of all code on a page, where a line that ends with a backslash goes on."""
    found = CODE.finditer(page.read_text())
    return [line for code in found for line in (code["block"] or code["inline"]).replace("\\\n", " ").splitlines()]


def commands(page: Path) -> list[tuple[str, str]]:
    """Scripts or modules, each with its arguments as they are written."""
    parts = [part for line in snippets(page) for part in re.split(r"[;&|]| # ", line)]
    found = [COMMAND.match(re.sub(r"^\s*(?:\w+=\S+ |timeout \S+ )*", "", part)) for part in parts]
    return sorted({(match["script"], match["rest"].strip()) for match in found if match})


WALKED = (
    ROOT / "docs/walkthrough.md"
)  # tests/demo/test_walkthrough.py holds its commands, which name runs of its recipe
ALL = [
    pytest.param(*command, id=f"{page.name}: {' '.join(command)}")
    for page in PAGES
    if page != WALKED
    for command in commands(page)
]


class ParsedError(Exception):
    """Raised where the work would begin."""


@pytest.fixture
def parse_alone(monkeypatch):
    def parse(*arguments, parse_flags=pipeline.cli.parse_flags, **keywords):
        parse_flags(*arguments, **keywords)
        raise ParsedError

    return parse


@pytest.mark.parametrize(("script", "rest"), ALL)
def test_a_command_on_a_page_is_one_that_the_parsers_take(script, rest, trained, tmp_path, monkeypatch, parse_alone):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "RUN").symlink_to(trained)
    arguments = [STANDS_FOR.get(word, word) for word in shlex.split(rest)]
    if script == "hack_train.py":
        if "--help" not in arguments:
            parse_command(arguments)
    elif script == "predict.py":
        pipeline.cli.parse_flags(PredictOptions, "", arguments=arguments)
    else:
        name = script.removeprefix("-m ")
        module = importlib.import_module(f"{name}.__main__" if name == "demo" else name)
        monkeypatch.setattr(module, "parse_flags", parse_alone)
        monkeypatch.setattr("sys.argv", [name, *arguments])
        if arguments:  # a name alone is how prose calls it
            with pytest.raises(ParsedError):
                module.main()


def test_there_are_commands_of_all_kinds():
    """Or else the pages are not read as they are written."""
    found = {script for page in PAGES for script, _ in commands(page)}
    assert {"hack_train.py", "predict.py", "-m tools.blend", "-m tools.ledger"} <= found
    assert len(ALL) > 50


def known_flags() -> set[str]:
    """The long flags that the help of both scripts and of all tools names."""
    tools = [importlib.import_module(f"tools.{path.stem}") for path in (ROOT / "tools").glob("[!_]*.py")]
    kinds = [kind for tool in tools for name, kind in vars(tool).items() if name.endswith("Options")]
    out = io.StringIO()
    for kind in [Command, PredictOptions, *filter(dataclasses.is_dataclass, kinds)]:
        with redirect_stdout(out), pytest.raises(SystemExit):
            tyro.cli(kind, args=["--help"], config=(tyro.conf.OmitArgPrefixes,))
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", out.getvalue()))


def test_a_flag_on_a_page_is_one_of_a_parser():
    known = known_flags() | OF_OTHERS
    assert {"--session-minutes", "--uncertainty", "--resume"} <= known
    for page in PAGES:
        if page.name not in NO_GUIDES:
            named = {line.split()[0].split("=")[0] for line in snippets(page) if line.startswith("--")}
            assert named <= known, f"{page.name} names {sorted(named - known)}"


@pytest.mark.parametrize("page", [*PAGES, NOTEBOOK], ids=lambda page: page.name)
def test_a_link_leads_somewhere(page):
    text = page.read_text()
    if page == NOTEBOOK:
        text = "\n".join(
            "".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"
        )
    for link in LINK.findall(text):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"
