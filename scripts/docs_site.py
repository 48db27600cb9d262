"""Build the documentation site into build/site: `make docs`.

The documents are copied to the places that they have in the repository, with the files that they
link to; Mermaid diagrams are drawn, so that no page needs a script for them. Zensical makes the
site and fails on a link that leads nowhere. What the pages load is then looked through: nothing may
come from another origin.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCE, SITE = ROOT / "build" / "docs", ROOT / "build" / "site"
LINK = re.compile(r"\]\(([^)\s#]+)")
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
NOT_LOADED = {"canonical", "next", "prev"}
DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```$", re.M | re.S)
HEADING = re.compile(r"^#+ (.+)$", re.M)
BLOCK = re.compile(r"^```.*?^```$", re.M | re.S)
THEMES = {"light": "neutral", "dark": "dark"}
"""Themes of Mermaid by the scheme of the page that shows only that picture."""
WITHOUT_HTML = json.dumps({"svg": {"pipeline": "resvg-safe"}})
VIEW = re.compile(r'viewBox="\S+ \S+ (\S+) (\S+)"')
IN_A_PICTURE = re.compile(r'href="(?!#)|url\((?!#)|@import|<script|<foreignObject')
"""What a picture would load, or run."""


def tracked() -> list[Path]:
    """The files of the repository; in an archive without Git, all that are there."""
    if not (ROOT / ".git").exists():
        return [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [Path(name) for name in names.split("\0") if name]


def documents() -> list[Path]:
    """The Markdown files that are read by people, and what is in docs/."""
    chosen = [p for p in tracked() if p.suffix == ".md" or p.parts[0] == "docs"]
    return sorted(p for p in chosen if p.parts[0] not in {"tests", "build", ".venv", "pages"})


def linked(document: Path) -> Iterator[Path]:
    """The files of the repository that a document links to; those of a folder, if it is one."""
    for target in LINK.findall((ROOT / document).read_text("utf-8")):
        path = (ROOT / document.parent / target).resolve()
        if "://" not in target and path.is_relative_to(ROOT):
            yield from (path.rglob("*") if path.is_dir() else [path])


def stage() -> None:
    """A copy of the documents and of what they link to."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    found = documents()
    others = {p.relative_to(ROOT) for d in found if d.suffix == ".md" for p in linked(d)}
    for path in {*found, *others.intersection(tracked())}:
        (SOURCE / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, SOURCE / path)
        if path.suffix == ".md":
            draw(SOURCE / path)


def draw(page: Path) -> None:
    """Put pictures in the place of a page's diagrams. Raises what the renderer does for one that is
    wrong. Where there is no renderer for this machine, diagrams stay text.
    """
    text = page.read_text("utf-8")
    if not DIAGRAM.search(text):
        return
    try:
        from merman import Merman
    except ImportError as error:
        print(f"{page.name}: its diagrams stay text: {error}", file=sys.stderr)
        return
    drawn, end = "", 0
    for number, found in enumerate(DIAGRAM.finditer(text), 1):
        drawn += text[end : found.start()]
        before = BLOCK.sub("", text[: found.start()])
        title = (HEADING.findall(before) or [page.stem])[-1]
        for scheme, theme in THEMES.items():
            name = f"{page.stem}-{number}-{scheme}.svg"
            (page.parent / name).write_text(picture(Merman(), found[1], theme), "utf-8")
            drawn += f"![Diagram: {title}]({name}#only-{scheme})\n"
        end = found.end()
    page.write_text(drawn + text[end:], "utf-8")


def picture(renderer: Any, diagram: str, theme: str) -> str:
    """A diagram as SVG of its natural size, without HTML.

    Its texts are smaller than the room that was measured for them: the reader's font may be wider.
    """
    look = json.dumps({"theme": theme, "fontFamily": "arial, sans-serif"})
    svg: str = renderer.render_svg(f"%%{{init: {look}}}%%\n{diagram}", WITHOUT_HTML)
    svg = re.sub(r"(font-size[=:]\"? ?)16px", r"\g<1>14px", svg)
    width, height = VIEW.search(svg).groups()  # type: ignore[union-attr]
    return svg.replace('width="100%"', f'width="{width}" height="{height}"', 1)


class Loaded(HTMLParser):
    """What a page loads by itself."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One element."""
        values = dict(attrs)
        if values.get("rel") not in NOT_LOADED:
            self.found.append(values.get(LOADED.get(tag, "")) or "")


def foreign() -> list[str]:
    """What pages load from another origin, and pictures that load or run anything."""
    active = [p for p in SITE.rglob("*.svg") if IN_A_PICTURE.search(p.read_text("utf-8"))]
    return sorted(str(p.relative_to(SITE)) for p in active) + sorted(
        f"{page.relative_to(SITE)}: {target}"
        for page in SITE.rglob("*.html")
        for target in Loaded(page.read_text("utf-8")).found
        if target.startswith(("http:", "https:", "//"))
    )


def main() -> int:
    """Build, and look through it."""
    stage()
    build = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    if code := subprocess.run(build, cwd=ROOT).returncode:
        return code
    if wrong := foreign():
        print("loaded from another origin:", *wrong, sep="\n", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
