"""The shell around the domain: listener, routes, Redis, authentication, command line.

This is the only package that awaits. It imports `syncbridge` and `syncbridge_core`; neither of
them imports it.
"""
