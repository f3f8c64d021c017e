"""The notebooks run from top to bottom in a kernel of their own, and leave no process behind."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))


@pytest.mark.system
@pytest.mark.timeout(400)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):  # of jupyter's own packages, about each other
        import nbformat
        from nbclient import NotebookClient

        notebook = nbformat.read(path, as_version=4)
        assert any(cell.outputs for cell in notebook.cells if cell.cell_type == "code"), "it was saved without results"
        NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}}
        ).execute()
