"""What MkDocs calls while it builds the site: it adds the pages that nobody writes by hand, and adapts links.

The pages in ``docs/`` link to each other and to files of the checkout by relative paths, so that they also work where
the repository is shown. Files outside ``docs/`` are brought into the site: the README as its home, the other pages of
the project, and the source files that a page links to.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from reference_pages import REFERENCE

CHECKOUT: Final = Path(__file__).resolve().parents[1]
DOCS: Final = "docs/"
SOURCE: Final = "source/"

# Pages outside docs/, and where they are in the site.
PROJECT: Final = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
_REPOSITORY_PATHS: Final = {uri: path for path, uri in PROJECT.items()}
_FENCE: Final = re.compile(r"^(```+).*?^\1$\n?", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_ROLE: Final = re.compile(r":(?:mod|func|class|meth|attr|data):(<code>)~?")
_SOURCE_PAGE: Final = """\
---
search:
  exclude: true
hide:
  - navigation
  - toc
---

# {path}

````{language} linenums="1"
{text}
````
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the home page, the pages of the project, the reference, and the source files that pages link to."""
    for path, uri in PROJECT.items():
        files.append(File.generated(config, uri, content=(CHECKOUT / path).read_text(encoding="utf-8")))
    for uri, generate in REFERENCE.items():
        files.append(File.generated(config, uri, content=generate()))
    pages = [(_repository_path(file.src_uri), file.content_string) for file in files.documentation_pages()]
    linked = {path for page, text in pages for path in _links_of(text, page)}
    for path in sorted(path for path in linked if _site_uri(path).startswith(SOURCE) and (CHECKOUT / path).is_file()):
        files.append(File.generated(config, _site_uri(path), content=_source_page(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to pages of the site, and indent nested lists as Python-Markdown needs it: by four columns."""
    own_uri = page.file.src_uri
    if own_uri.startswith((SOURCE, "reference/")):
        return markdown
    own_path = _repository_path(own_uri)

    def relinked(match: re.Match[str]) -> str:
        path, anchor = _resolve(match[1], own_path)
        if path is None:
            return match[0]
        return f"]({posixpath.relpath(_site_uri(path), posixpath.dirname(own_uri) or '.')}{anchor})"

    def adapted(text: str) -> str:
        return re.sub(r"^ +(?=- )", lambda match: match[0] * 2, _LINK.sub(relinked, text), flags=re.MULTILINE)

    return _outside_code(markdown, adapted)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Remove Sphinx roles, such as ``:func:``, that docstrings have before names."""
    return _ROLE.sub(r"\1", html)


def _outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """Return a page with its text changed and its code blocks as they are."""
    parts, end = [], 0
    for block in _FENCE.finditer(markdown):
        parts += [change(markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(markdown[end:])])


def _links_of(text: str, page: str) -> set[str]:
    """Return the paths, relative to the checkout, that a page links to."""
    targets = (_resolve(target, page)[0] for target in _LINK.findall(_FENCE.sub("", text)))
    return {path for path in targets if path is not None}


def _resolve(target: str, page: str) -> tuple[str | None, str]:
    """Return the path in the checkout that a link of a page leads to, and the anchor with its ``#``.

    The path is None if the link leads to another site or to an anchor of the same page.
    """
    path, hash_sign, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return None, ""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), path)), hash_sign + anchor


def _repository_path(uri: str) -> str:
    """Return the path in the checkout of a page of the site."""
    return _REPOSITORY_PATHS.get(uri, DOCS + uri)


def _site_uri(path: str) -> str:
    """Return where a file of the checkout is in the site, as the path of its Markdown file."""
    if path in PROJECT:
        return PROJECT[path]
    if path.startswith(DOCS):
        uri = path.removeprefix(DOCS)
        return f"{uri}/README.md" if (CHECKOUT / path).is_dir() else uri
    return f"{SOURCE}{path}.md"


def _source_page(path: str) -> str:
    text = (CHECKOUT / path).read_text(encoding="utf-8").rstrip("\n")
    language = {".py": "python", ".csv": "text", ".yaml": "yaml", ".yml": "yaml"}.get(Path(path).suffix, "text")
    return _SOURCE_PAGE.format(path=path, language=language, text=text)
