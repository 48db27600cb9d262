"""The documentation site: diagrams are drawn for light and dark pages, the navigation is whole."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGE = """# Title

## A call

```sh
# not a heading
```

```mermaid
flowchart LR
    A --> B
```

After it.
"""
SVG = '<svg width="100%" viewBox="4 4 120.5 60"><a href="#x"/></svg>'


@pytest.fixture
def site() -> ModuleType:
    """The program that builds the site."""
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "scripts/docs_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Renderer:
    """Draws the same of everything, and notes what it was to draw."""

    asked: list[str] = []

    def render_svg(self, diagram: str, _: Any) -> str:
        """As `merman.Merman`."""
        self.asked.append(diagram)
        return SVG


def test_each_diagram_is_two_pictures(
    site: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of their natural size; a page shows the one of its scheme, and says what it is."""
    there: Any = SimpleNamespace(Merman=Renderer)
    monkeypatch.setitem(sys.modules, "merman", there)
    page = tmp_path / "calls.md"
    page.write_text(PAGE)
    site.draw(page)

    text = page.read_text()
    assert "![Diagram: A call](calls-1-light.svg#only-light)" in text
    assert "![Diagram: A call](calls-1-dark.svg#only-dark)" in text
    assert ("mermaid" in text, "After it." in text) == (False, True)
    for scheme in ("light", "dark"):
        drawn = (tmp_path / f"calls-1-{scheme}.svg").read_text()
        assert '<svg width="120.5" height="60"' in drawn
    assert ["neutral", "dark"] == [
        theme for theme in ("neutral", "dark") if any(f'"{theme}"' in one for one in Renderer.asked)
    ]
    assert all("A --> B" in one for one in Renderer.asked)


def test_without_a_renderer_a_diagram_stays_text(
    site: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the site can be built on any machine."""
    monkeypatch.setitem(sys.modules, "merman", None)  # type: ignore[arg-type]
    page = tmp_path / "calls.md"
    page.write_text(PAGE)
    site.draw(page)

    assert page.read_text() == PAGE


def test_a_picture_that_loads_or_runs_something_is_found(
    site: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that a new release of the renderer would make."""
    monkeypatch.setattr(site, "SITE", tmp_path)
    for name, svg in {
        "good": SVG,
        "font": "<svg><style>@import 'https://fonts.example'</style></svg>",
        "image": '<svg><image href="https://example.com/x.png"/></svg>',
        "script": "<svg><script>1</script></svg>",
    }.items():
        (tmp_path / f"{name}.svg").write_text(svg)

    assert ["font.svg", "image.svg", "script.svg"] == site.foreign()


def test_every_document_is_in_the_navigation(site: ModuleType) -> None:
    """So that who reads the site finds it without a link; decisions have a page that lists them."""
    found = [path for path in site.documents() if path.parts[0] == "docs" and path.suffix == ".md"]
    documents = {path.as_posix() for path in found}
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))

    apart = {path for path in documents if path.startswith("docs/decisions/0")}
    assert documents - apart - listed == set()
    assert all((ROOT / path).exists() for path in listed)
