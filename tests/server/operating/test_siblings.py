"""Metrics of several workers as one text."""

from pathlib import Path

import trio

from syncbridge_server.telemetry.siblings import Siblings, merged

ONE = """# HELP a_total Some.
# TYPE a_total counter
a_total 1.0
# HELP b_seconds Times.
# TYPE b_seconds histogram
b_seconds_bucket{le="1.0",route="/x y{z}"} 2.0
b_seconds_bucket{le="+Inf",route="/x y{z}"} 2.0
"""
TWO = """# HELP a_total Some.
# TYPE a_total counter
a_total 5.0
# HELP c Only here.
# TYPE c gauge
c 1.5e+06
"""


def test_texts_become_one() -> None:
    """A family is declared once; each line says which worker it is of."""
    lines = merged({0: ONE, 1: TWO, 2: None}).splitlines()

    assert lines[:4] == [
        "# HELP a_total Some.",
        "# TYPE a_total counter",
        'a_total{worker="0"} 1.0',
        'a_total{worker="1"} 5.0',
    ]
    assert 'b_seconds_bucket{worker="0",le="1.0",route="/x y{z}"} 2.0' in lines
    assert 'c{worker="1"} 1.5e+06' in lines
    assert [
        f'syncbridge_worker_up{{worker="{i}"}} {up}' for i, up in enumerate((1.0, 1.0, 0.0))
    ] == (lines[-3:])


async def test_a_sibling_that_is_away(tmp_path: Path) -> None:
    """Those that answer are told together; one that is silent, or not there, is told as away."""
    folder = str(tmp_path)
    first, second = (Siblings(folder, i, 4, text.encode) for i, text in enumerate((ONE, TWO)))
    silent = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    with silent:
        await silent.bind(f"{folder}/3")
        silent.listen(1)
        async with trio.open_nursery() as nursery:
            await nursery.start(first.run)
            await nursery.start(second.run)
            told = (await first.gather()).decode()
            nursery.cancel_scope.cancel()

    assert 'a_total{worker="1"} 5.0' in told
    assert 'syncbridge_worker_up{worker="1"} 1.0' in told
    assert 'syncbridge_worker_up{worker="2"} 0.0' in told
    assert 'syncbridge_worker_up{worker="3"} 0.0' in told
