"""The requests of the session state document, as printed there: what a reader pastes first.

Only `localhost:8080` and `{token}` are replaced before a command runs.
"""

CREATE = """
curl -X POST http://localhost:8080/session/snapshot \\
  -H "Content-Type: application/json" \\
  -d '{
    "session_id": "550e8400-e29b-41d4-a716-446655440000",
    "user_id": "user-123",
    "state_data": {
      "meditation_progress": 75,
      "current_mood": "calm",
      "streak_days": 12
    },
    "device_id": "device-456",
    "app_version": "2.1.0",
    "version": 1
  }'
"""

READ = """
curl http://localhost:8080/session/550e8400-e29b-41d4-a716-446655440000
"""

INCREMENTAL = """
curl -X POST http://localhost:8080/session/incremental \\
  -H "Content-Type: application/json" \\
  -d '{
    "session_id": "550e8400-e29b-41d4-a716-446655440000",
    "user_id": "user-123",
    "device_id": "device-789",
    "base_version": 1,
    "changes": {
      "meditation_progress": 80
    },
    "deleted_keys": []
  }'
"""

RESOLVE = """
curl -X POST http://localhost:8080/session/conflict/resolve \\
  -H "Content-Type: application/json" \\
  -d '{
    "session_id": "550e8400-e29b-41d4-a716-446655440000",
    "client_version": 2,
    "client_state": {
      "meditation_progress": 85
    },
    "resolution_strategy": "server_wins"
  }'
"""

DEVICES = """
curl http://localhost:8080/session/550e8400-e29b-41d4-a716-446655440000/devices
"""

HANDOFF = """
curl -X POST http://localhost:8080/session/550e8400-e29b-41d4-a716-446655440000/handoff \\
  -H "Content-Type: application/json" \\
  -d '{
    "source_device": "device-phone",
    "target_device": "device-tablet"
  }'
"""

REDEEM = """
curl http://localhost:8080/session/550e8400-e29b-41d4-a716-446655440000/handoff/{token}
"""

DISCONNECT = """
curl -X DELETE http://localhost:8080/session/550e8400-e29b-41d4-a716-446655440000/device/device-456
"""

METRICS = """
curl http://localhost:8080/admin/metrics/all
"""

BROADCAST = """
curl -X POST http://localhost:8080/admin/broadcast \\
  -H "Content-Type: application/json" \\
  -d '{
    "message": "System maintenance scheduled",
    "type": "notification"
  }'
"""

SESSION = "550e8400-e29b-41d4-a716-446655440000"

MESSAGES = (
    (7, {"device_id": "device-456", "device_type": "mobile", "device_name": "iPhone 13"}),
    (1, {"client_time": 1_700_000_000_000}),
    (5, {"key": "meditation_progress", "value": 80, "operation": "SET"}),
    (12, {}),
)
"""The WebSocket example: type and payload, the token left out of the first."""
