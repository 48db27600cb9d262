"""The paths of webhooks, which have a separate rate limit."""

PATHS = (
    "/rtk-webhook",
    "/voice/webhook",
    "/rtk/participant-joined",
    "/rtk/participant-left",
    "/rtk/session-ended",
    "/rtk/recording-ready",
)
