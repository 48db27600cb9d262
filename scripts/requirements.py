"""Print what pyproject.toml requires, one requirement a line: requirements.py build|EXTRA ..."""

import sys
import tomllib
from pathlib import Path


def main(names: list[str]) -> None:
    document = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))
    required = document["project"]["optional-dependencies"]
    required["build"] = document["build-system"]["requires"]
    print(*(line for name in names for line in required[name]), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
