"""How Sphinx builds the documentation: ``sphinx-build -W --keep-going -n docs build/docs``; nothing is fetched."""

import importlib.util
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import lessons
import machines
import names

import fastq as fq
import pictures
from fastq.pictures.bench_page import bench_card

project = "fastq"
author = "The fastq developers"
copyright = author
version = release = fq.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "myst_parser"]
myst_enable_extensions = ["attrs_block", "colon_fence", "deflist"]
myst_heading_anchors = 3

# Types stand in the docstrings, next to what they are for; in signatures they would stand twice.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_mock_imports = [] if importlib.util.find_spec("zarr") else ["zarr"]  # Python 3.10 has no zarr 3
autosummary_generate = False
napoleon_google_docstring = False
napoleon_use_param = False  # types of parameters are words ("array_like"), not names to be looked up
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]
python_use_unqualified_type_names = True
add_module_names = False
highlight_language = "none"  # literal blocks of docstrings are equations

html_theme = "furo"
html_title = f"fastq {release}"
html_static_path = ["static"]
html_css_files = ["fastq.css"]
html_show_copyright = False
html_copy_source = False
exclude_patterns = ["**/*.inc"]
pygments_style, pygments_dark_style = "friendly", "monokai"


def setup(app):
    """Pictures, lessons and tables are made by fastq itself at each build, so that they cannot go stale."""
    app.connect("builder-inited", lambda app: make(pathlib.Path(app.srcdir)))


def make(docs):
    """Make what is not written by hand. A lesson runs again if it has changed, or fastq has."""
    pictures.draw_all(docs / "guide" / "pictures")
    names.write(docs / "reference" / "names.inc")
    (docs / "measured").mkdir(exist_ok=True)
    machines.write(docs / "results", docs / "measured" / "tables.inc", bench_card)
    lessons.write_all(docs.parent / "examples", docs / "lessons")
