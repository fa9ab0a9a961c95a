"""MkDocs hook: the page of the command line is what typer writes of every command's ``--help``."""

import re
import subprocess
import sys
from typing import Any

PAGE = "reference/cli.md"
MARK = "<!-- commands -->"


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Put the commands in the place of the mark."""
    return markdown.replace(MARK, commands()) if page.file.src_uri == PAGE else markdown


def commands() -> str:
    """Every command, the groups' too, as Markdown."""
    typer = [sys.executable, "-m", "typer", "ibstore.cli", "utils", "docs", "--name", "ibstore"]
    written = subprocess.run(typer, check=True, capture_output=True, text=True, encoding="utf-8").stdout
    whole = written.split("**Commands**:", 1)[1]
    _summary, listed = whole.split("\n## ", 1)
    return re.sub(r"docs/([\w-]+\.md)", r"[\1](../\1)", f"## {listed}")
