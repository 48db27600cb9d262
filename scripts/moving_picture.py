"""Join pictures to a moving one: moving_picture.py FOLDER OUT.webp. `make images` uses it.

The pictures are in the order of their names, which end in the milliseconds that each is shown.
"""

import sys
from pathlib import Path

from PIL import Image

WIDTH = 930
LARGEST = 1_500_000


def main(folder: Path, out: Path) -> None:
    """Write it. Raises SystemExit if it is too large for the top of a page."""
    paths = sorted(folder.glob("*.png"))
    pictures = [Image.open(path).convert("RGB") for path in paths]
    height = round(pictures[0].height * WIDTH / pictures[0].width)
    small = [p.resize((WIDTH, height), Image.Resampling.LANCZOS) for p in pictures]
    shown = [int(path.stem.rpartition("-")[2]) for path in paths]
    small[0].save(
        out, save_all=True, append_images=small[1:], duration=shown, loop=0, quality=80, method=6
    )
    if out.stat().st_size > LARGEST:
        raise SystemExit(f"{out} has {out.stat().st_size} bytes, more than {LARGEST}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
