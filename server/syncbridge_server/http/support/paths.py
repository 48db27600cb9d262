"""Where webhooks come in; the limiter of rates counts these apart."""

PATHS = (
    "/rtk-webhook",
    "/rtk/participant-joined",
    "/rtk/participant-left",
    "/rtk/session-ended",
    "/rtk/recording-ready",
)
