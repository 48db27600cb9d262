"""Two devices of one user: what the phone sets, the laptop sees.

    .venv/bin/python examples/two_devices.py "$(.venv/bin/syncbridge token --user demo)"

Needs a server on 127.0.0.1:8080 (`make run`), or one that SYNCBRIDGE_URL names. Runs on Trio; with
`backend="asyncio"` in the last lines it runs on asyncio.
"""

import os
import sys

import anyio

from syncbridge_client import ClientError, connect

URL = os.environ.get("SYNCBRIDGE_URL", "http://127.0.0.1:8080")


async def main(token: str) -> None:
    async with (
        connect(URL, token=token, device_id="phone", start_timeout=5) as phone,
        connect(URL, token=token, device_id="laptop", start_timeout=5) as laptop,
    ):
        for name, session in (("phone", phone), ("laptop", laptop)):
            print(f"{name}: joined at version {session.version}, state {dict(session.state)}")
        changes = laptop.changes()
        update = await phone.set("progress", 10 * (phone.version + 1))
        print(f"phone: version {await update.acknowledged(within=10)}: {dict(phone.state)}")
        with anyio.fail_after(10):
            change = await anext(changes)
        print(f"laptop: version {change.version}: {change.changed}")
        print(f"the same over REST: curl -s {URL}/session/{phone.session_id}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        anyio.run(main, sys.argv[1], backend="trio")
    except ClientError as error:
        sys.exit(f"no session on {URL}; is the server running (`make run`)? {error}")
