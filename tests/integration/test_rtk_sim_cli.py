"""`syncbridge rtk-sim` as a command."""

import signal
import subprocess
import sys

import httpx
import pytest

COMMAND = [sys.executable, "-m", "syncbridge_server", "rtk-sim"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_and_stops(number: signal.Signals) -> None:
    """It prints where it is and its key, answers with that key, and ends when it is told to, also
    where its parent ignores SIGINT, as a shell does for what it starts in the background."""
    background = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    command = [*background, *COMMAND, "--bind", "127.0.0.1:0", "--key", "k", "--secret", "s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().decode().strip() for _ in range(3)]
            values = dict(line.split("=", 1) for line in lines)
            body = {"sessionId": "a"}
            headers = {"authorization": "Bearer k"}
            answer = httpx.post(f"{values['RTK_API_URL']}/sessions", json=body, headers=headers)
            process.send_signal(number)
            status = process.wait(10)
        finally:
            process.kill()

    assert {"RTK_API_URL", "RTK_API_KEY", "RTK_SECRET_KEY"} == set(values)
    assert (201, 0) == (answer.status_code, status)


def test_an_address_that_cannot_be_had_is_one_line() -> None:
    """A wrong address ends with a sentence and exit code 2, not with a traceback."""
    done = subprocess.run([*COMMAND, "--bind", "192.0.2.1:1"], capture_output=True, timeout=30)

    assert 2 == done.returncode
    assert done.stderr.startswith(b"syncbridge rtk-sim: ")
    assert 1 == done.stderr.count(b"\n")
