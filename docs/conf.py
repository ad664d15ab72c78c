"""The site: `make docs` builds it into build/docs, and a warning is an error."""

import sys
from pathlib import Path

import dendrite_zoo

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "dendrite-zoo"
copyright = "the dendrite-zoo contributors"
release = version = dendrite_zoo.__version__

extensions = [
    "myst_nb",  # pages in Markdown, and notebooks as pages
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "mathml",
    "public_names",
]
exclude_patterns = ["extensions", "static"]

# Notebooks show the outputs that they were saved with; a test runs them.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

default_role = "py:obj"  # `ForgettingLogger` in a docstring is a link where there is such a name
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Shape", "notes_style"), ("Source", "notes_style")]
napoleon_use_ivar = True  # attributes that are properties, too, stand once in the index
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
python_display_short_literal_types = True
html_math_renderer = "mathml"
toc_object_entries_show_parents = "hide"

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = f"dendrite-zoo {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
