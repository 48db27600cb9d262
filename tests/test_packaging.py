"""What is shipped is what is in the tree: sdist, wheels and editable install, each tried for real.

Two distributions: the server, and the Python client, which is pure Python and stands alone.

The tree is copied first, so that no leftover of an earlier build can reach a package and no test
changes the checkout. An installation goes into an empty environment that borrows this one's
dependencies by a `.pth` line; such a line does not run the `.pth` files beside them, so the
checkout that is being tested stays invisible there. Kernels are compiled without optimisation:
here it matters that they are there, not that they are fast.
"""

import ast
import email
import email.message
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from support.source_tree import (
    CLIENT,
    CLIENT_ROOT,
    ROOT,
    SOURCE_ROOTS,
    files,
    text,
    with_suffix,
)

pytestmark = pytest.mark.slow

PROJECT = tomllib.loads(text(Path("pyproject.toml")))["project"]
EXTRAS = PROJECT["optional-dependencies"]
CLIENT_PROJECT = tomllib.loads(text(CLIENT_ROOT / "pyproject.toml"))["project"]
COMPILED = {".pyx", ".pxi", ".h", ".c"}
"""Suffixes in the source roots that do not go into the wheel."""

ONLY_IN_THE_CHECKOUT = {".ci", ".devcontainer", ".github", ".gitignore", ".gitattributes"}
"""Top-level names that the sdist leaves out."""

WRITTEN = "_version.py"
"""What the build writes into each package that has a version."""
VERSION, NO_VERSION = "1.2.3", "0.1.dev0"
"""Of the sdist here, which stands for a tag; and where neither git nor an sdist tells one."""


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Standard output of a command; its whole output in the failure when it fails."""
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    environment |= {"SYNCBRIDGE_CFLAGS": "-O0 -g0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment |= variables
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's files, in a folder whose name has a space."""
    copy = tmp_path_factory.mktemp("a checkout")
    for path in files():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, copy / path)
    return copy


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("sdist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--sdist"]
    told = {"SETUPTOOLS_SCM_PRETEND_VERSION": VERSION}
    run(*build, "--outdir", target, cwd=checkout, **told)
    (archive,) = target.iterdir()
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist alone."""
    target = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps"]
    run(*pip, "--wheel-dir", target, sdist, cwd=target)
    (archive,) = target.iterdir()
    return archive


@pytest.fixture(scope="module")
def client_wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's wheel, built from its folder alone where there is no compiler."""
    target = tmp_path_factory.mktemp("client")
    alone = shutil.copytree(checkout / CLIENT_ROOT, tmp_path_factory.mktemp("a folder") / "python")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps"]
    run(*pip, "--wheel-dir", target, alone, cwd=target, CC="false", PATH=str(target))
    (archive,) = target.iterdir()
    return archive


def environment(where: Path) -> Path:
    """The Python of a new environment that sees this one's dependencies, and no more of it."""
    venv.create(where, with_pip=False, symlinks=True)
    packages = next((where / "lib").glob("python3*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return where / "bin" / "python"


def install(python: Path, *what: str | Path, cwd: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--force-reinstall"]
    run(*pip, "--no-deps", "--no-build-isolation", *what, cwd=cwd)


def packaged(path: Path) -> str:
    """The name in a wheel of a file in a source root."""
    return Path(*path.parts[1:]).as_posix()


def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_wheel_holds_what_the_source_roots_hold(wheel: Path) -> None:
    """Every file of the four packages is in the wheel, sources of the kernels excepted."""
    ours = [p for p in files() if p.parts[0] in SOURCE_ROOTS and p.suffix != ".md"]
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    compiled = {packaged(p.with_suffix(suffix)) for p in ours if p.suffix == ".pyx"}
    expected = {packaged(p) for p in ours if p.suffix not in COMPILED} | compiled
    expected.add(f"syncbridge/{WRITTEN}")
    with zipfile.ZipFile(wheel) as archive:
        actual = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert actual == expected


def test_wheel_metadata_agrees_with_the_project(wheel: Path) -> None:
    """The version is the sdist's; licence, Python range and extras are those of the tree."""
    told = metadata(wheel)

    assert told["Version"] == VERSION
    assert told["Requires-Python"] == PROJECT["requires-python"]
    assert told["License-Expression"] == PROJECT["license"]
    assert set(told.get_all("Provides-Extra", [])) == set(EXTRAS)


def test_sdist_holds_the_project(sdist: Path) -> None:
    """Every file of the project is in the sdist, but for what only a checkout needs."""
    expected = {p.as_posix() for p in files() if p.parts[0] not in ONLY_IN_THE_CHECKOUT}
    with tarfile.open(sdist) as archive:
        members = [m.name.split("/", 1)[1] for m in archive.getmembers() if m.isfile()]
    made = {"PKG-INFO", "setup.cfg"}
    made.add(f"pysrc/syncbridge/{WRITTEN}")
    actual = {m for m in members if m not in made and ".egg-info/" not in m}

    assert actual == expected


def test_client_wheel_holds_the_client(client_wheel: Path) -> None:
    """Every file of the package is in a wheel for any system, with version, range and licence."""
    expected = {
        p.relative_to(CLIENT_ROOT).as_posix()
        for p in files()
        if p.is_relative_to(CLIENT_ROOT / CLIENT)
    } | {f"{CLIENT}/{WRITTEN}"}
    with zipfile.ZipFile(client_wheel) as archive:
        actual = {name for name in archive.namelist() if ".dist-info/" not in name}
    told = metadata(client_wheel)

    assert client_wheel.name.endswith("-py3-none-any.whl")
    assert actual == expected
    assert told["Name"] == CLIENT_PROJECT["name"]
    assert told["Version"] == NO_VERSION
    assert told["Requires-Python"] == CLIENT_PROJECT["requires-python"]
    assert told["License-Expression"] == CLIENT_PROJECT["license"]
    assert text(CLIENT_ROOT / "LICENSE") == text(Path("LICENSE"))


def test_client_works_without_the_server(client_wheel: Path, tmp_path: Path) -> None:
    """In a clean environment the client is there, and nothing else of ours."""
    python = environment(tmp_path / "env")
    install(python, client_wheel, cwd=tmp_path)
    show = f"import importlib.util as u, {CLIENT} as c\nprint(c.__file__, c.connect.__name__)\n"
    show += f"print(*(n for n in {sorted(SOURCE_ROOTS.values())} if u.find_spec(n)))"
    found, others = run(python, "-c", show, cwd=tmp_path).split("\n")[:2]

    assert found.startswith(str(tmp_path / "env"))
    assert found.endswith(" connect")
    assert others == ""


def test_neither_distribution_needs_the_other() -> None:
    """Neither is published, so neither names the other as a dependency; the commands that install
    from the checkout take both.
    """
    names = {PROJECT["name"], CLIENT_PROJECT["name"]}
    needed = [*PROJECT["dependencies"], *CLIENT_PROJECT["dependencies"]]
    needed += [line for lines in EXTRAS.values() for line in lines]
    lines = text(Path("Makefile")).splitlines()
    installs = [line for line in lines if re.search(r"--editable (?:'\.\[|\. |\.$)", line)]

    assert {requirement(line) for line in needed} & names == set()
    assert installs
    assert [line for line in installs if "--editable ./clients/python" not in line] == []


WHERE = """
import importlib.util
import syncbridge, syncbridge_core.document, syncbridge_core.hub, syncbridge_server
import syncbridge_tools
assert importlib.util.find_spec("syncbridge_client") is None
from syncbridge.kernels import IMPLEMENTATION, split
assert split(b'{"a": 1}').render() == b'{"a":1}'
print(IMPLEMENTATION, syncbridge.__file__, syncbridge_core.hub.__file__, syncbridge_server.__file__,
      syncbridge_tools.__file__)
"""


def test_wheel_works_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    """From another folder the installed wheel imports its own files and its command runs."""
    python = environment(tmp_path / "env")
    install(python, wheel, cwd=tmp_path)
    implementation, *found = run(python, "-c", WHERE, cwd=tmp_path).split()

    assert implementation == "compiled"
    assert [path for path in found if not path.startswith(str(tmp_path / "env"))] == []
    assert VERSION in run(python.with_name("syncbridge"), "version", cwd=tmp_path)


def test_editable_install_works_from_another_folder(checkout: Path, tmp_path: Path) -> None:
    """An editable install imports the checkout's files, kernels built beside their sources."""
    python = environment(tmp_path / "env")
    both = ("--editable", checkout, "--editable", checkout / CLIENT_ROOT)
    install(python, *both, cwd=tmp_path)
    show = "import syncbridge as d, syncbridge_core.hub as c, syncbridge_server as s\n"
    show += f"import syncbridge_tools as t, {CLIENT} as p\n"
    show += "print(*(m.__file__ for m in (d, c, s, t, p)), sep='\\n')"
    found = run(python, "-c", show, cwd=tmp_path).splitlines()
    roots = [checkout / root / package for root, package in SOURCE_ROOTS.items()]
    roots.append(checkout / CLIENT_ROOT / CLIENT)

    assert sorted({str(Path(path).parent) for path in found}) == sorted(map(str, roots))
    assert NO_VERSION in run(python.with_name("syncbridge"), "version", cwd=tmp_path)


@pytest.mark.parametrize("folder", [".", CLIENT_ROOT.as_posix()])
def test_version_is_that_of_the_tag(folder: str, tmp_path: Path) -> None:
    """At a tag both distributions have its version; without one, a clone counts its commits."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    run("git", "clone", "--quiet", "--shared", "--no-tags", ROOT, tmp_path / "clone", cwd=tmp_path)
    here = tmp_path / "clone" / folder
    show = [sys.executable, "-m", "setuptools_scm", "--config", here / "pyproject.toml"]
    untagged = run(*show, cwd=here).strip()
    run("git", "tag", "v1.2.3", cwd=here)

    assert re.fullmatch(r"0\.1\.dev\d+\+g[0-9a-f]+", untagged)
    assert "1.2.3" == run(*show, cwd=here).strip()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_wheels_are_built_for_every_python_and_libc(machine: str) -> None:
    """What cibuildwheel is configured to build: four Pythons, glibc and musl."""
    show = [sys.executable, "-m", "cibuildwheel", "--platform", "linux", "--archs", machine]
    listed = run(*show, "--print-build-identifiers", cwd=ROOT).split()
    pythons = ["cp311", "cp312", "cp313", "cp314"]

    assert sorted(listed) == sorted(
        f"{python}-{libc}linux_{machine}" for python in pythons for libc in ("many", "musl")
    )


def requirement(text: str) -> str:
    """The distribution's name in a requirement, normalised."""
    return re.split(r"[^\w.-]", text, maxsplit=1)[0].lower().replace("_", "-")


def third_party(under: str) -> set[str]:
    """Top-level modules that Python files below a folder import and that are not ours."""
    found: set[str] = set()
    for path in with_suffix(".py", under=under):
        for node in ast.walk(ast.parse(text(path))):
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - set(SOURCE_ROOTS.values()) - {CLIENT}


def test_what_is_imported_is_declared() -> None:
    """Every distribution that the packages import is a dependency of its own, not by luck."""
    providers = packages_distributions()
    declared = {requirement(line) for line in PROJECT["dependencies"]}
    optional = {
        requirement(line) for name in ("embedded", "bench", "otel") for line in EXTRAS[name]
    }
    of_client = {requirement(line) for line in CLIENT_PROJECT["dependencies"]}
    server = third_party("pysrc/") | third_party("server/") | third_party("tools/")

    def missing(modules: set[str], known: set[str]) -> set[str]:
        names = {m: {requirement(name) for name in providers.get(m, [])} for m in modules}
        return {module for module, found in names.items() if not found & known}

    assert missing(server, declared | optional) == set()
    assert missing(third_party(f"{CLIENT_ROOT}/"), of_client) == set()


def test_build_requirements_are_in_the_test_extra() -> None:
    """What builds the project is installed for the tests too, in the same range."""
    building = tomllib.loads(text(Path("pyproject.toml")))["build-system"]["requires"]

    assert set(building) <= set(EXTRAS["test"])


def test_image_is_built_from_what_is_in_the_tree() -> None:
    """Each file that the Dockerfile copies exists, and .dockerignore lets it through."""
    allowed = {
        line[1:] for line in text(Path(".dockerignore")).splitlines() if line.startswith("!")
    }
    copied = [
        name
        for line in text(Path("Dockerfile")).splitlines()
        if line.startswith("COPY ") and "--from=" not in line
        for name in line.split()[1:-1]
    ]

    assert copied
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert [name for name in copied if name not in allowed] == []
