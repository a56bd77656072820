"""Execute notebooks in place, all of them or those that are named: ``python notebooks/execute.py quickstart annotation``.

Each runs in a kernel of this Python, in a temporary folder. Data are looked for in the folder that ``SCGPT_DATA`` names.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def execute(notebook: nbformat.NotebookNode, folder: str | Path) -> None:
    """Run all cells, in a folder, and keep their outputs without what depends on the machine and time of the run."""
    environment = os.environ | {"SCGPT_DATA": str(Path(os.environ.get("SCGPT_DATA", "data")).resolve())}
    environment.pop("MPLBACKEND", None)  # figures are to be outputs
    environment["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm, where ipywidgets are not installed
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=resources, record_timing=False)
    client.execute(env=environment)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


def main() -> None:
    """Execute notebooks and say what each took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=sorted(path.stem for path in HERE.glob("*.ipynb")))
    for name in parser.parse_args().names:
        path = HERE / f"{Path(name).stem}.ipynb"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            execute(notebook, folder)
        nbformat.write(notebook, path)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"{path.name}: {seconds:.0f} s of the processor; peak so far {after.ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
