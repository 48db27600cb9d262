"""What a release is made by: workflows, templates, the devcontainer, and names that are told.

Nothing is published yet, so no message and no document may have somebody install from an index.
"""

import json
import re
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from support.source_tree import CLIENT_ROOT, ROOT, files, text, with_suffix

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PREPARATION = {
    "apt-get -qq update && apt-get -qq install --yes --no-install-recommends ca-certificates git",
    'git config --global --add safe.directory "$GITHUB_WORKSPACE"',
}
"""What makes a checkout possible in an empty container."""
OURS = r"syncbridge(?![-_]\*|/)[\w-]*|@syncbridge/client"
FROM_AN_INDEX = re.compile(
    rf"(?:pip3?|pipx|uv|npm|pnpm|yarn) (?:install|add|i) (?:-\S+ )*[\"']?({OURS})\b"
)
BUILT = [f"3.{minor}" for minor in re.findall(r'"cp3(\d+)-\*"', text(Path("pyproject.toml")))]
"""Pythons that wheels are built for."""


def workflow(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return document


def steps() -> list[tuple[str, dict[str, Any]]]:
    """Each step of each workflow."""
    return [
        (path.name, step)
        for path in WORKFLOWS
        for job in workflow(path)["jobs"].values()
        for step in job["steps"]
    ]


def test_workflows_only_call_what_can_be_run_anywhere() -> None:
    """A step gets the sources or passes files on, or runs a script of .ci with one of its parts."""
    release = re.findall(r"^    (\w+)\) ", text(Path(".ci/release")), re.M)
    scripts = {"bash .ci/run", "bash .ci/long ${{ matrix.part }}"}
    scripts |= {f"bash .ci/release {part}" for part in release}
    other = [(n, s["run"]) for n, s in steps() if "run" in s and s["run"] not in PREPARATION]
    actions = {s["uses"].split("@")[0] for _, s in steps() if "uses" in s}

    assert {"version", "wheels", "source", "npm", "audit", "publish"} == set(release)
    assert [] == [step for step in other if step[1] not in scripts]
    assert {"check.yml", "long.yml", "audit.yml", "release.yml"} == {name for name, _ in other}
    assert {"actions/checkout", "actions/upload-artifact", "actions/download-artifact"} == actions


def test_workflows_have_a_bound_and_no_rights_that_they_do_not_need() -> None:
    """Reading is the default; only the job that publishes may write."""
    documents = {path.name: workflow(path) for path in WORKFLOWS}
    jobs = [(n, name, job) for n, one in documents.items() for name, job in one["jobs"].items()]

    assert [{"contents": "read"}] * len(documents) == [d["permissions"] for d in documents.values()]
    assert [("release.yml", "publish")] == [(n, j) for n, j, job in jobs if "permissions" in job]
    assert [] == [(n, j) for n, j, job in jobs if "timeout-minutes" not in job]


def test_every_long_part_runs_once_a_week() -> None:
    """The workflow has what .ci/long runs without a name: `matrix` once for each Python."""
    parts = re.search(r"^PARTS=\((.+)\)$", text(Path(".ci/long")), re.M)
    job = workflow(ROOT / ".github/workflows/long.yml")["jobs"]["part"]
    matrix = job["strategy"]["matrix"]
    pythons = [one["python"] for one in matrix["include"]]

    assert parts is not None
    assert sorted(parts[1].split()) == sorted([*matrix["part"], "matrix"])
    assert BUILT == pythons
    assert [
        {"part": "matrix", "image": f"python:{python}-slim-trixie", "python": python}
        for python in pythons
    ] == matrix["include"]
    assert (["debian:trixie"], "${{ matrix.image }}") == (
        matrix["image"],
        job["container"]["image"],
    )
    assert {"MATRIX": "${{ matrix.python }}"} == job["steps"][-1]["env"]
    assert re.search(r"^MATRIX \?= ", text(Path("Makefile")), re.M)


def test_nobody_is_told_to_install_what_is_not_published() -> None:
    """Neither messages nor documents have our names after an installing command."""
    told = [
        path
        for path in chain(with_suffix(".py", ".md", ".ts", ".tsx", ".sh", ".mjs", ".html"))
        if path.name != "CHANGELOG.md" and path.parts[0] != "tests"
    ]
    found = [f"{p}: {m[0]}" for p in told for m in FROM_AN_INDEX.finditer(text(p))]

    assert [] == found
    assert FROM_AN_INDEX.search("pip install 'syncbridge[bench]'")
    assert FROM_AN_INDEX.search("npm install --save @syncbridge/client")
    assert not FROM_AN_INDEX.search("npm install /path/to/clone/clients/js")


def test_devcontainer_has_what_the_readme_names() -> None:
    """`make run` works in it: Debian's packages, and steps that the Makefile has."""
    readme = re.search(r"`apt install ([a-z0-9 .+-]+)`", text(Path("README.md")))
    recipe = text(Path(".devcontainer/Dockerfile"))
    lines = text(Path(".devcontainer/devcontainer.json")).splitlines()
    told = json.loads("\n".join(line for line in lines if not line.startswith("//")))
    made = told["postCreateCommand"].removeprefix("make ").split()

    assert readme is not None
    assert set(readme[1].split()) <= set(recipe.split())
    assert "redis-server" in recipe.split()
    assert [] == [
        step
        for step in made
        if f"\n{step.replace('.venv/done', '$(DONE)')}:" not in text(Path("Makefile"))
    ]
    assert (ROOT / ".devcontainer" / told["build"]["dockerfile"]).exists()
    assert [8080] == told["forwardPorts"]


def test_support_names_each_python_that_wheels_are_built_for() -> None:
    """docs/support.md has a row for each, and for each kind of server."""
    page = text(Path("docs/support.md"))
    rows = re.findall(r"^\| (?:(3\.\d+)|((?:Redis|Valkey)[ .,\d]*\d)) \| ", page, re.M)

    assert BUILT == [python for python, _ in rows if python]
    assert ["Redis 7.0", "Redis 7.2, 7.4", "Redis 8.0", "Valkey 9"] == [s for _, s in rows if s]


def test_citation_and_templates_are_what_they_should_be() -> None:
    """CITATION.cff has what the format asks for; each issue form asks for something."""
    citation = yaml.safe_load(text(Path("CITATION.cff")))
    folder = Path(".github/ISSUE_TEMPLATE")
    forms = [p for p in files() if p.parent == folder and p.name != "config.yml"]

    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert "MIT" == citation["license"]
    assert 2 == len(forms)
    for form in map(yaml.safe_load, map(text, forms)):
        assert {"name", "description", "body"} == set(form)
        assert any(part.get("validations", {}).get("required") for part in form["body"])


def test_both_distributions_take_the_version_from_the_same_tag() -> None:
    """And say the same where there is none."""
    server, client = text(Path("pyproject.toml")), text(CLIENT_ROOT / "pyproject.toml")
    fallback = re.compile(r'^fallback_version = "(.+)"$', re.M)

    assert fallback.findall(server) == fallback.findall(client) != []
    assert 'root = "../.."' in client
    assert f"ARG VERSION={fallback.findall(server)[0]}" in text(Path("Dockerfile"))
