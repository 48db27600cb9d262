"""Figures of calls and webhooks: counted, measured, surveyed, sent to analytics."""
