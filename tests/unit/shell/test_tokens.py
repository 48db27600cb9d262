"""Tokens: what is minted is verified, and nothing else is."""

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from support.auth_kit import ACCESS_SECRET, NOW, REFRESH_SECRET, SESSION, make_tokens
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Role, VoiceGrant
from syncbridge_server.auth.claims import Grant
from syncbridge_server.auth.keys import HmacKey, KeyVerifier, OneKey, PrivateKey, public_key
from syncbridge_server.auth.tokens import TokenRules, Tokens
from syncbridge_server.settings import ConfigError

printable = st.text(min_size=1, max_size=16).filter(str.isprintable)
voice = st.builds(VoiceGrant, printable, printable, st.lists(printable, max_size=3).map(tuple))
grants = st.builds(
    Grant,
    user_id=printable,
    role=st.sampled_from(Role),
    session_id=st.just("") | st.uuids().map(str),
    device_id=st.just("") | printable,
    voice=st.lists(voice, max_size=3).map(tuple),
    family=st.just("") | printable,
    name=st.just("") | printable.map(str.strip),
)


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims with changes; None takes a claim away."""
    good = {
        "sub": "alice",
        "role": "user",
        "typ": "access",
        "jti": "j1",
        "iat": NOW,
        "exp": NOW + 900,
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def sign(
    payload: Any, secret: str = ACCESS_SECRET, header: str = '{"alg":"HS256","typ":"JWT"}'
) -> str:
    """A token made by hand, so that also nonsense gets a good signature."""
    text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header.encode(), text)]
    body = b".".join(parts)
    digest = hmac.digest(secret.encode(), body, hashlib.sha256)
    return (body + b"." + base64.urlsafe_b64encode(digest).rstrip(b"=")).decode()


def refused(token: str, now: float = NOW, tokens: Tokens | None = None) -> SyncBridgeError:
    """The error for a token, which must not quote it."""
    with pytest.raises(SyncBridgeError) as caught:
        (tokens or make_tokens()).verify_access(token, now)
    assert not token or token not in caught.value.detail
    return caught.value


@given(grants)
def test_verified_is_what_was_minted(grant: Grant) -> None:
    """An access token gives back each part of its grant, and its times."""
    token, minted = make_tokens().mint_access(grant, NOW, 60.0)

    identity = make_tokens().verify_access(token, NOW)

    assert identity == minted.identity()
    assert (identity.user_id, identity.role, identity.session_id) == grant[:3]
    assert (identity.device_id, identity.voice, identity.family, identity.name) == grant[3:]
    assert (NOW, NOW + 60.0) == (identity.issued_at, identity.expires_at)


@given(grants)
def test_refresh_token_gives_back_its_grant(grant: Grant) -> None:
    """A refresh token says the same about its successor."""
    grant = grant._replace(family="f1")
    token, _ = make_tokens().mint_refresh(grant, NOW)

    assert grant == make_tokens().verify_refresh(token, NOW).grant()


TOKEN = sign(claims())
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \u00e9"


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from(ALPHABET))
@settings(max_examples=300)
def test_any_changed_character_is_refused(index: int, character: str) -> None:
    """No character of a token can be another one."""
    mutated = TOKEN[:index] + character + TOKEN[index + 1 :]
    if mutated != TOKEN:
        assert ErrorCode.TOKEN_INVALID is refused(mutated).code


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_garbage_is_refused(text: str) -> None:
    """No text that is not a token makes anything but TOKEN_INVALID."""
    with pytest.raises(SyncBridgeError) as caught:
        make_tokens().verify_access(text, NOW)

    assert ErrorCode.TOKEN_INVALID is caught.value.code


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_signed_garbage_is_refused(payload: Any) -> None:
    """A good signature does not make a payload of it."""
    assert ErrorCode.TOKEN_INVALID is refused(sign(payload)).code


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sub": None}, "sub"),
        ({"role": None}, "role"),
        ({"typ": None}, "typ"),
        ({"jti": None}, "jti"),
        ({"iat": None}, "iat"),
        ({"exp": None}, "exp"),
        ({"sub": ""}, "sub"),
        ({"sub": 7}, "sub"),
        ({"sub": "x" * 65}, "sub"),
        ({"sub": "\u00e9" * 33}, "sub"),
        ({"sub": "a\nb"}, "sub"),
        ({"jti": ""}, "jti"),
        ({"role": "root"}, "role"),
        ({"role": ["admin"]}, "role"),
        ({"typ": "refresh"}, "typ"),
        ({"typ": "handoff"}, "typ"),
        ({"session_id": "not-a-uuid"}, "session_id"),
        ({"session_id": SESSION.upper()}, "session_id"),
        ({"session_id": "{" + SESSION + "}"}, "session_id"),
        ({"device_id": "d" * 65}, "device_id"),
        ({"device_id": 3}, "device_id"),
        ({"voice": "*"}, "voice"),
        ({"voice": [{"waddle": "w"}]}, "voice"),
        ({"voice": [{"waddle": "w", "channel": 1}]}, "voice"),
        ({"iat": "now"}, "iat"),
        ({"iat": True}, "iat"),
        ({"iat": -1}, "iat"),
        ({"iat": NOW + 61, "exp": NOW + 100}, "not valid yet"),
        ({"nbf": NOW + 61}, "not valid yet"),
        ({"exp": 1e300}, "Unix seconds"),
        ({"exp": 10**30}, "exp"),
        ({"exp": NOW + 604_802}, "at most 604800 s"),
        ({"exp": NOW - 1}, "at most"),
    ],
)
def test_bad_claims_are_named(changes: dict[str, Any], words: str) -> None:
    """Each claim that is missing or wrong refuses the token, and the error names it."""
    error = refused(sign(claims(**changes)))

    assert ErrorCode.TOKEN_INVALID is error.code
    assert words in error.detail


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("Ann Lee", "Ann Lee"),
        (" Ann\n\x00 ", "Ann"),
        ("é" * 200, "é" * 128),
        ("x" * 255 + "é", "x" * 255),
        (7, ""),
        (["Ann"], ""),
    ],
)
def test_a_name_never_makes_a_token_worthless(told: Any, shown: str) -> None:
    """Whoever issues tokens calls users what they like; what cannot be shown is left out."""
    token = sign(claims(name=told))

    assert shown == make_tokens().verify_access(token, NOW).name


def test_expiry_has_a_leeway_of_a_minute() -> None:
    """A token is good until 60 s after exp, also when it was verified before."""
    tokens = make_tokens()
    tokens.verify_access(TOKEN, NOW)

    assert "alice" == tokens.verify_access(TOKEN, NOW + 959.9).user_id
    assert ErrorCode.TOKEN_EXPIRED is refused(TOKEN, NOW + 960, tokens).code
    assert ErrorCode.TOKEN_EXPIRED is refused(TOKEN, NOW + 960).code


def test_clock_of_the_issuer_may_be_a_minute_ahead() -> None:
    """iat up to 60 s in the future is forgiven."""
    token = sign(claims(iat=NOW + 60))

    assert NOW + 60 == make_tokens().verify_access(token, NOW).issued_at


def test_size_is_bounded_before_anything_is_read() -> None:
    """4 KiB is the largest token."""
    assert "4096" in refused(sign(claims(pad="x" * 4096))).detail
    assert "4096" in refused("x" * 10_000_000).detail
    assert "4096" in refused("").detail


@pytest.mark.parametrize(
    "header",
    [
        '{"alg":"none","typ":"JWT"}',
        '{"alg":"None"}',
        '{"alg":""}',
        '{"typ":"JWT"}',
        '{"alg":"HS512","typ":"JWT"}',
        '{"alg":"RS256","typ":"JWT"}',
        '{"alg":["HS256"]}',
        '{"alg":null}',
        '{"alg":"HS256","crit":["exp"],"exp":1}',
        '{"alg":"HS256","b64":false,"crit":["b64"]}',
        '{"alg":"HS256","kid":7}',
        '["HS256"]',
        "nonsense",
    ],
)
@pytest.mark.parametrize("signature", [True, False])
def test_header_does_not_choose_the_algorithm(header: str, signature: bool) -> None:
    """No other algorithm and no critical extension is accepted, signed or not."""
    token = sign(claims(), header=header)
    if not signature:
        token = token.rpartition(".")[0] + "."

    assert ErrorCode.TOKEN_INVALID is refused(token).code


def test_other_headers_of_the_same_algorithm_are_fine() -> None:
    """HS256 tokens of other libraries, with their member order and extras, are verified."""
    other = jwt.encode(claims(), ACCESS_SECRET, "HS256", headers={"kid": "k", "x": "y"})

    assert "alice" == make_tokens().verify_access(other, NOW).user_id
    assert ErrorCode.TOKEN_INVALID is refused(jwt.encode(claims(), "b" * 40, "HS256")).code


def test_our_tokens_are_readable_by_other_libraries() -> None:
    """What we mint is a plain HS256 JWT."""
    token, _ = make_tokens().mint_access(Grant("alice"), NOW)
    read = jwt.decode(token, ACCESS_SECRET, algorithms=["HS256"], options={"verify_iat": False})

    assert ("alice", "user", "access") == (read["sub"], read["role"], read["typ"])


def test_kinds_do_not_stand_in_for_each_other() -> None:
    """A refresh token opens nothing, an access token refreshes nothing, whatever the secret."""
    tokens = make_tokens()
    access, _ = tokens.mint_access(Grant("alice", family="f"), NOW)
    refresh, _ = tokens.mint_refresh(Grant("alice", family="f"), NOW)
    same_secret = sign(claims(typ="refresh", fam="f"))

    assert ErrorCode.TOKEN_INVALID is refused(refresh).code
    assert "typ must be access" in refused(same_secret).detail
    for token in (access, sign(claims(fam="f"), REFRESH_SECRET), same_secret):
        with pytest.raises(SyncBridgeError, match="token refused"):
            tokens.verify_refresh(token, NOW)


def test_refresh_token_needs_a_family() -> None:
    """Without `fam` a refresh token cannot be rotated and is refused."""
    with pytest.raises(SyncBridgeError, match="fam"):
        make_tokens().verify_refresh(sign(claims(typ="refresh"), REFRESH_SECRET), NOW)


@pytest.mark.parametrize(
    "grant", [Grant(""), Grant("x" * 65), Grant("a", session_id="s"), Grant("a", device_id="\0")]
)
def test_nothing_is_minted_that_would_be_refused(grant: Grant) -> None:
    """A grant that no token may carry is an INVALID_FIELD of whoever asked for it."""
    with pytest.raises(SyncBridgeError, match="not issued") as caught:
        make_tokens().mint_access(grant, NOW)

    assert ErrorCode.INVALID_FIELD is caught.value.code


def test_life_is_cut_to_the_longest() -> None:
    """A token asked to live for a year lives for max_life."""
    token, minted = make_tokens().mint_access(Grant("alice"), NOW, 365 * 86_400.0)

    assert NOW + 604_800 == minted.exp
    assert "alice" == make_tokens().verify_access(token, NOW).user_id


def test_cache_is_bounded_and_still_right() -> None:
    """More tokens than the cache holds are all verified; a forged one never comes from it."""
    tokens = make_tokens(cache_entries=2)
    made = [tokens.mint_access(Grant(f"user-{n}"), NOW)[0] for n in range(5)]

    seen = [tokens.verify_access(token, NOW).user_id for token in made * 2]

    assert [f"user-{n}" for n in range(5)] * 2 == seen
    assert ErrorCode.TOKEN_INVALID is refused(made[4][:-2] + "xx", NOW, tokens).code


def test_issuer_and_audience_are_held_when_configured() -> None:
    """With an issuer and an audience, only tokens that name both are good."""
    tokens = make_tokens(issuer="https://id.example", audience="syncbridge")
    good = sign(claims(iss="https://id.example", aud=["other", "syncbridge"]))

    assert "alice" == tokens.verify_access(good, NOW).user_id
    assert "iss" in refused(sign(claims(aud="syncbridge")), NOW, tokens).detail
    wrong = sign(claims(iss="https://id.example", aud="other"))
    assert "aud" in refused(wrong, NOW, tokens).detail
    ours, _ = tokens.mint_access(Grant("alice"), NOW)
    assert "alice" == tokens.verify_access(ours, NOW).user_id


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


def pem(key: Any) -> str:
    """Private key as PEM."""
    form = serialization.PrivateFormat.PKCS8
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, plain).decode()


def public_pem(key: Any) -> str:
    """Public key as PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def asymmetric(algorithm: str, key: Any) -> Tokens:
    """Tokens signed by a private key and verified with its public PEM."""
    verifier = KeyVerifier(OneKey(public_key(algorithm, public_pem(key))))
    signer = PrivateKey(algorithm, pem(key).replace("\n", "\\n"))
    return Tokens(TokenRules(), verifier, signer, HmacKey(REFRESH_SECRET))


@pytest.mark.parametrize(("algorithm", "key"), [("RS256", RSA), ("ES256", EC)])
def test_asymmetric_keys(algorithm: str, key: Any) -> None:
    """RS256 and ES256 tokens are verified with the public key; every other alg is refused."""
    tokens = asymmetric(algorithm, key)
    token, _ = tokens.mint_access(Grant("alice"), NOW)

    assert "alice" == tokens.verify_access(token, NOW).user_id
    assert ErrorCode.TOKEN_INVALID is refused(TOKEN, NOW, tokens).code
    assert ErrorCode.TOKEN_INVALID is refused(token).code
    assert ErrorCode.TOKEN_INVALID is refused(token[:-4] + "AAAA", NOW, tokens).code


@pytest.mark.parametrize("header", ['{"alg":"HS256","typ":"JWT"}', '{"typ":"JWT","alg":"HS256"}'])
@pytest.mark.parametrize(("algorithm", "key"), [("RS256", RSA), ("ES256", EC)])
def test_public_key_is_no_hmac_secret(algorithm: str, key: Any, header: str) -> None:
    """A token signed by HMAC with the public key as the secret is refused."""
    forged = sign(claims(role="admin"), public_pem(key), header)

    assert ErrorCode.TOKEN_INVALID is refused(forged, NOW, asymmetric(algorithm, key)).code


@pytest.mark.parametrize(
    ("algorithm", "text"),
    [
        ("RS256", public_pem(EC)),
        ("ES256", public_pem(RSA)),
        ("ES256", public_pem(ec.generate_private_key(ec.SECP384R1()))),
        ("RS256", public_pem(rsa.generate_private_key(public_exponent=65537, key_size=1024))),
        ("RS256", "-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----"),
        ("RS256", "/nowhere/key.pem"),
    ],
)
def test_keys_must_fit_their_algorithm(algorithm: str, text: str) -> None:
    """A key of the wrong kind, curve or size is a ConfigError, at the start."""
    with pytest.raises(ConfigError):
        public_key(algorithm, text)


def test_without_a_signing_key_nothing_is_minted() -> None:
    """A server that only verifies says so."""
    verifier = KeyVerifier(OneKey(public_key("RS256", public_pem(RSA))))
    tokens = Tokens(TokenRules(), verifier, None, HmacKey(REFRESH_SECRET))

    with pytest.raises(SyncBridgeError, match="does not issue"):
        tokens.mint_access(Grant("alice"), NOW)


def test_a_secret_is_needed() -> None:
    """An empty secret signs nothing."""
    with pytest.raises(ConfigError):
        HmacKey("")


def test_a_short_secret_works_for_development() -> None:
    """Short secrets are production's matter; here they sign and verify, in both paths."""
    key = HmacKey("harmony-flow-secret-key")
    other = jwt.encode(claims(), "harmony-flow-secret-key", "HS256", headers={"kid": "x"})

    assert b"x" == key.payload(key.sign(b"x"))
    assert b"alice" in key.payload(other)
