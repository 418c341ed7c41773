"""Asks a page something in a real browser: headless Chromium, where it is installed."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next((path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))), None)
needs_a_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
PHONE, PAPER = 390, 718  # pixels; of paper, a sheet of A4 between its margins
TRIES = 4  # a busy machine may end the page's time before the page is there


def answer(page: str, question: str, folder: Path, *, width: int = 1000) -> str:
    """What the body of a JavaScript function returns, a string, once the page has loaded in a window of that width.

    folder: for the browser's files. Fails where the page's scripts end in an error.
    """
    probe = (
        "<script>const say = (what) => parent.postMessage(what, '*');"
        "window.onerror = (message) => say('error ' + message);"
        f"addEventListener('load', () => say('answer ' + (() => {{ {question} }})()));</script></head>"
    )
    (folder / "asked.html").write_text(page.replace("</head>", probe, 1))
    frame = folder / "frame.html"  # a window of its own would be 500 px wide at least
    frame.write_text(
        "<!DOCTYPE html><body><script>addEventListener('message', (event) => {"
        "document.body.dataset[event.data.split(' ')[0]] = event.data; });</script>"
        f"<iframe src='asked.html' width='{width}' height='900' frameborder='0'></iframe>"
    )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,1000"]
    for attempt in range(1, TRIES + 1):
        profile = f"--user-data-dir={folder / f'profile{attempt}'}"
        budget = f"--virtual-time-budget={5000 * attempt}"
        command = [str(CHROMIUM), *flags, profile, budget, "--dump-dom", f"file://{frame}"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
        assert "data-error" not in shown, re.search(r'data-error="([^"]*)', shown)
        if found := re.search(r'<body[^>]* data-answer="answer ([^"]*)"', shown):
            return html.unescape(found[1])
    raise AssertionError(f"the page does not answer in {TRIES} attempts: {question}")


def cut_on_paper(page: str, folder: Path) -> str:
    """The parts of a page that would be cut off at the right edge of a sheet, as a browser lays out what it prints."""
    assert "@media print" in page
    printed = page.replace("@media print", "@media all").replace("@media screen", "@media not all")
    question = (
        "return [...document.querySelectorAll('.scroll, .figure, table, svg, p')].filter(part => part.scrollWidth >"
        "part.clientWidth + 1 || part.getBoundingClientRect().right > innerWidth + 1).map(part => part.tagName)"
        ".join(' ') || 'nothing'"
    )
    return answer(printed, question, folder, width=PAPER)
