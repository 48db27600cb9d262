// A back end in Node: it keeps a call session over HTTP, and tells the user's devices of it.
//
// Copy it into a project that has @syncbridge/client installed. In the clone whose server runs:
//
//     export SYNCBRIDGE_URL=http://127.0.0.1:8080
//     export SERVICE_TOKEN=$(.venv/bin/syncbridge token --user back-end --role service)
//     export USER_TOKEN=$(.venv/bin/syncbridge token --user ann)
//
// Then, in the project: node node_service.mjs
import { connect } from "@syncbridge/client";
import { createApi } from "@syncbridge/client/server";

const { SYNCBRIDGE_URL: url, SERVICE_TOKEN, USER_TOKEN } = process.env;
const api = createApi({ url, token: SERVICE_TOKEN });
const session = await connect({ url, token: USER_TOKEN, deviceId: "back-end" });

const id = `call-${crypto.randomUUID()}`;
await api.post("/sessions", { body: { id, type: "WebRTC", details: { topic: "support" } } });
for (const state of ["active", "terminated"]) {
  await api.put("/sessions/{id}/state", { path: { id }, body: { state } });
  await session.set("call", { id, state }).acknowledged(5_000);
  console.log(`the devices show: ${session.get("call").state}`);
}
const { details } = await api.get("/sessions/{id}", { path: { id } });
console.log(`the server has it with the topic ${details.topic}`);
await session.close();
