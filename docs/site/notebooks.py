"""MkDocs hook: each ``docs/examples/NAME.py``, cells of text and code, is executed and becomes the page NAME.md.

A cell that fails fails the build. Pages look like all others: tables are the theme's, pictures are files.
"""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mkdocs.structure.files import File

FOLDER = Path(__file__).parent.parent / "examples"
SECONDS = 300


def on_files(files: Any, *, config: Any) -> Any:
    """Add a page for each example, and its pictures."""
    for source in sorted(FOLDER.glob("*.py")):
        text, pictures = page(source)
        files.append(File.generated(config, f"examples/{source.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"examples/{name}", content=content))
    return files


def page(source: Path) -> tuple[str, dict[str, bytes]]:
    """Markdown of an executed example, and its pictures by name."""
    from nbconvert import MarkdownExporter

    exporter = MarkdownExporter()
    outputs = {"output_files_dir": "", "unique_key": source.stem}
    text, resources = exporter.from_notebook_node(executed(source), resources=outputs)
    head, body = text.strip().split("\n", 1)
    return f"{head}\n\nThe source: [{source.name}]({source.name}).\n{_themed(body)}", resources["outputs"]


def executed(source: Path) -> Any:
    """The notebook with its outputs, run in an empty folder."""
    import jupytext
    from nbclient import NotebookClient

    notebook = jupytext.read(source)
    with TemporaryDirectory() as folder:
        run_there = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=run_there)
        client.extra_arguments = ["--log-level=ERROR"]  # of a kernel that only this process talks to
        return client.execute()


def _themed(text: str) -> str:
    """Tables without the styles that data frames bring along, and their texts without quotes."""
    plain = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL).replace(' border="1" class="dataframe"', "")
    return re.sub(r"<td>&quot;(.*?)&quot;</td>", r"<td>\1</td>", plain, flags=re.DOTALL)
