"""Standard Webhooks: what is believed and what is not."""

import pytest

from syncbridge.voice.provider.records import RefusalReason, Verified, WebhookRefused
from syncbridge.voice.provider.signatures import secret_bytes, sign, verify

OLD = b"an old secret of enough bytes ..."
NEW = b"a new secret of enough bytes ...."
BODY = b'{"type":"session.ended"}'
NOW = 1_700_000_000
ID = "msg_1"


def headers(
    *keys: bytes, delivery_id: str = ID, timestamp: int = NOW, body: bytes = BODY
) -> dict[str, str]:
    """What a sender with these keys sends."""
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign(key, delivery_id, timestamp, body) for key in keys),
    }


def test_the_published_example_is_verified() -> None:
    """The test vector of the Standard Webhooks specification."""
    key = secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    sent = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    body = b'{"test": 2432232314}'

    assert Verified(sent["webhook-id"], 1614265330.0) == verify(sent, body, 1614265330, [key])


ACCEPTED = {
    "one secret": (headers(NEW), [NEW]),
    "we rotate: both of ours are tried": (headers(OLD), [NEW, OLD]),
    "the sender rotates: both of its are tried": (headers(OLD, NEW), [NEW]),
    "another scheme beside ours": (
        {**headers(NEW), "webhook-signature": "v1a,xyz " + headers(NEW)["webhook-signature"]},
        [NEW],
    ),
    "five minutes old": (headers(NEW, timestamp=NOW - 300), [NEW]),
    "five minutes ahead": (headers(NEW, timestamp=NOW + 300), [NEW]),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_was_signed_is_believed(case: str) -> None:
    """Any of our secrets may fit any of its signatures, up to five minutes either way."""
    sent, keys = ACCEPTED[case]

    assert Verified(ID, float(sent["webhook-timestamp"])) == verify(sent, BODY, NOW, keys)


REFUSED = {
    "wrong secret": (headers(OLD), [NEW], RefusalReason.MISMATCH),
    "no secret of ours": (headers(NEW), [], RefusalReason.MISMATCH),
    "too old": (headers(NEW, timestamp=NOW - 301), [NEW], RefusalReason.STALE),
    "too far ahead": (headers(NEW, timestamp=NOW + 301), [NEW], RefusalReason.STALE),
    "tampered body": (headers(NEW, body=BODY + b" "), [NEW], RefusalReason.MISMATCH),
    "another id": ({**headers(NEW), "webhook-id": "msg_2"}, [NEW], RefusalReason.MISMATCH),
    "another time": (
        {**headers(NEW), "webhook-timestamp": str(NOW + 1)},
        [NEW],
        RefusalReason.MISMATCH,
    ),
    "id with a dot": (headers(NEW, delivery_id="msg.1"), [NEW], RefusalReason.MALFORMED),
    "id with a blank": (headers(NEW, delivery_id="msg 1"), [NEW], RefusalReason.MALFORMED),
    "long id": (headers(NEW, delivery_id="m" * 129), [NEW], RefusalReason.MALFORMED),
    "id that is not ASCII": (headers(NEW, delivery_id="mé"), [NEW], RefusalReason.MALFORMED),
    "no id": (headers(NEW, delivery_id=""), [NEW], RefusalReason.MISSING),
    "no signature": (headers(), [NEW], RefusalReason.MISSING),
    "no time": ({**headers(NEW), "webhook-timestamp": ""}, [NEW], RefusalReason.MISSING),
    "time in words": ({**headers(NEW), "webhook-timestamp": "now"}, [NEW], RefusalReason.MALFORMED),
    "time with a sign": (
        {**headers(NEW), "webhook-timestamp": "-1"},
        [NEW],
        RefusalReason.MALFORMED,
    ),
    "time without end": (
        {**headers(NEW), "webhook-timestamp": "9" * 40},
        [NEW],
        RefusalReason.MALFORMED,
    ),
    "time in other digits": (
        {**headers(NEW), "webhook-timestamp": "١٧"},
        [NEW],
        RefusalReason.MALFORMED,
    ),
    "nine signatures": (headers(*[NEW] * 9), [NEW], RefusalReason.MALFORMED),
    "other scheme only": (
        {**headers(NEW), "webhook-signature": "v2,abc"},
        [NEW],
        RefusalReason.MISMATCH,
    ),
    "signature that is not ASCII": (
        {**headers(NEW), "webhook-signature": "v1,é"},
        [NEW],
        RefusalReason.MISMATCH,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_was_not_signed_is_refused(case: str) -> None:
    """Each defect has its reason, and none of them raises."""
    sent, keys, reason = REFUSED[case]

    assert WebhookRefused(reason) == verify(sent, BODY, NOW, keys)


def test_no_headers_at_all_are_missing() -> None:
    """A request that is not a webhook."""
    assert WebhookRefused(RefusalReason.MISSING) == verify({}, BODY, NOW, [NEW])


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_*!*", "whsec_a"])
def test_a_secret_that_is_none_is_refused(secret: str) -> None:
    """An empty key would sign for anybody."""
    with pytest.raises(ValueError, match="webhook secret"):
        secret_bytes(secret)
