"""Print what pyproject.toml needs to build the project, one requirement a line."""

import tomllib
from pathlib import Path


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))
    print(*project["build-system"]["requires"], sep="\n")


if __name__ == "__main__":
    main()
