"""Sphinx configuration; https://www.sphinx-doc.org/en/master/usage/configuration.html explains the options."""

import os
import shutil
from importlib import import_module
from importlib.metadata import metadata
from pathlib import Path

import torch

# -- Project ---------------------------------------------------------------------------------------------------------

info = metadata("scgpt-tools")  # an editable install keeps what it read last: reinstall after editing pyproject.toml
project = info["Name"]
author = info["Author"]
copyright = f"2026, {author}"
version = release = info["Version"]
repository_url = dict(url.split(", ") for url in info.get_all("Project-URL"))["Source"]

# -- Extensions ------------------------------------------------------------------------------------------------------

extensions = [
    "myst_nb",
    "scverse_misc.sphinx_ext",  # before napoleon; brings the templates of the API pages
    "scverse_doc.xref_overrides",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.bibtex",
    "sphinxcontrib.katex",
    "sphinxext.opengraph",
    "IPython.sphinxext.ipython_console_highlighting",
]
# Notebooks lie where people look for them; Sphinx reads what is below its own folder alone.
HERE = Path(__file__).parent
for notebook in (HERE.parent / "notebooks").glob("*.ipynb"):
    (HERE / "notebooks").mkdir(exist_ok=True)
    shutil.copy2(notebook, HERE / "notebooks")
exclude_patterns = ["_build", "Thumbs.db", ".DS_Store", "**.ipynb_checkpoints"]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
default_role = "literal"

autosummary_generate = True
autodoc_member_order = "groupwise"
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_include_init_with_doc = False
napoleon_use_param = True
napoleon_use_rtype = True
typehints_defaults = "braces"
always_use_bars_union = True

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "html_admonition", "html_image"]
myst_heading_anchors = 6
myst_url_schemes = ("http", "https", "mailto")
nb_execution_mode = "off"  # notebooks carry the outputs of the run that made them
nb_merge_streams = True
nb_output_stderr = "remove"

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
katex_prerender = False  # the server that would do so may not be up when it is first asked

# -- References ------------------------------------------------------------------------------------------------------

nitpicky = True
nitpick_ignore = [  # links that cannot be made to work from here
    ("py:class", "scgpt.index._vectors.Store"),  # what ReferenceIndex is made of, which users do not make themselves
    ("py:class", "scgpt.index._labels.Labels"),
]
intersphinx_mapping = {
    "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
    "lightning": ("https://lightning.ai/docs/pytorch/stable/", None),
    "matplotlib": ("https://matplotlib.org/stable/", None),
    "mudata": ("https://mudata.readthedocs.io/stable/", None),
    "networkx": ("https://networkx.org/documentation/stable/", None),
    "numpy": ("https://numpy.org/doc/stable/", None),
    "pandas": ("https://pandas.pydata.org/docs/", None),
    "python": ("https://docs.python.org/3", None),
    "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
    "scib-metrics": ("https://scib-metrics.readthedocs.io/en/stable/", None),
    "scipy": ("https://docs.scipy.org/doc/scipy/", None),
    "scvi": ("https://docs.scvi-tools.org/en/stable/", None),
    "torch": ("https://docs.pytorch.org/docs/stable/", None),
}
if os.environ.get("DOCS_OFFLINE"):
    # The other projects' indices are out of reach: only links within this package can be checked.
    intersphinx_mapping = {}
    nitpick_ignore_regex = [("py:.*", r"(?!scgpt\b).*")]
    suppress_warnings = ["ref.doc", "ref.ref"]

# Public objects are defined in private modules, and a type annotation names those: link to the public page instead.
xref_overrides = {"networkx.classes.graph.Graph": "networkx.Graph", "scgpt.hub._checkpoint.Card": "scgpt.hub.ModelCard"}
for namespace in ("data", "get", "hub", "metrics", "metrics.baselines", "model", "nn", "pl", "tl"):
    module = import_module(f"scgpt.{namespace}")
    for name in module.__all__:
        public = getattr(module, name)
        if getattr(public, "__module__", "").startswith("scgpt."):
            xref_overrides[f"{public.__module__}.{public.__qualname__}"] = f"scgpt.{namespace}.{name}"


def leave_out_inherited(app, what, name, obj, skip, options):
    """Leave out what the classes of PyTorch, Lightning and scvi-tools pass on: their own documentation has it."""
    origin = (getattr(getattr(obj, "fget", obj), "__module__", None) or "").partition(".")[0]
    inherited = origin in {"lightning", "scvi", "torch"} or (
        origin != "scgpt" and name in torch.nn.Module.__annotations__
    )
    return True if inherited else None


def setup(app):
    """Connect the hook, which the tables of members ask, too."""
    app.connect("autodoc-skip-member", leave_out_inherited)


# -- HTML ------------------------------------------------------------------------------------------------------------

html_theme = "sphinx_book_theme"
html_title = project
html_theme_options = {
    "repository_url": repository_url,
    "use_repository_button": True,
    "path_to_docs": "docs/",
    "navigation_with_keys": False,
    "navbar_persistent": [],  # the sidebar has a field to search in
}
pygments_style = "default"
