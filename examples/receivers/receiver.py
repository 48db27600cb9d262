"""A receiver of events in Python, without packages: checks the signature, and knows repetitions.

WEBHOOK_SECRET=whsec_... python examples/receivers/receiver.py 9000
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEYS = [
    base64.b64decode(secret.removeprefix("whsec_"))
    for secret in os.environ["WEBHOOK_SECRET"].split()
]
SEEN: dict[str, None] = {}  # yours: a table with the ids of what was handled


def is_signed(headers, body: bytes) -> bool:
    event_id, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not at.isdigit() or abs(time.time() - int(at)) > 300:
        return False
    signed = b".".join((event_id.encode(), at.encode(), body))
    given = [part.partition(",")[2] for part in headers.get("webhook-signature", "").split()]
    for key in KEYS:
        wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        if any(hmac.compare_digest(wanted, one) for one in given):
            return True
    return False


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        good = is_signed(self.headers, body)
        if good and self.headers["webhook-id"] not in SEEN:
            SEEN[self.headers["webhook-id"]] = None
            event = json.loads(body)
            print(event["type"], event.get("session_id", ""), flush=True)
        self.send_response(204 if good else 401)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
