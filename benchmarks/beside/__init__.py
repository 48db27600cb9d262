"""SyncBridge beside Centrifugo, under one load: see bench_peers.py."""
