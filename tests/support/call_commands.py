"""The requests of the session manager document, with its bodies as printed, as a gateway sends
them. Only `localhost:8080` is replaced before a command runs.
"""

CREATE = """
curl -X POST http://localhost:8080/sessions \\
  -H "Content-Type: application/json" \\
  -d '{
    "id": "call-12345",
    "type": "SIP",
    "details": {
        "caller_id": "1001",
        "callee_id": "2002"
    }
}'
"""

READ = """
curl http://localhost:8080/sessions/call-12345
"""

LIST = """
curl http://localhost:8080/sessions
"""

HISTORY = """
curl http://localhost:8080/sessions/call-12345/history
"""

STATE = """
curl -X PUT http://localhost:8080/sessions/call-12345/state \\
  -H "Content-Type: application/json" \\
  -d '{
    "state": "active"
}'
"""

DETAILS = """
curl -X PUT http://localhost:8080/sessions/call-12345/details \\
  -H "Content-Type: application/json" \\
  -d '{
    "details": {
        "custom_info": "updated_value",
        "another_key": "new_info"
    }
}'
"""

DELETE = """
curl -X DELETE http://localhost:8080/sessions/call-12345
"""
