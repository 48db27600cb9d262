// What was built can be loaded by both kinds of modules, has what it should, and speaks the protocol.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { connect, RawNumber } from "@syncbridge/client";
import { conflicts } from "@syncbridge/client/conflicts";
import { offline } from "@syncbridge/client/offline";

const require = createRequire(import.meta.url);
const common = { ...require("@syncbridge/client"), ...require("@syncbridge/client/offline") };
const settles = (policy) => require("@syncbridge/client/conflicts").conflicts(policy);
const react = require("@syncbridge/client/react");
if (react.useValue.length !== 1) throw new Error("no hooks");
if (typeof require("@syncbridge/client/server").createApi !== "function") throw new Error("no api");
if (!require("@syncbridge/client/voice").VoiceClient) throw new Error("no voice");
const values = [connect, offline, common.connect, common.offline, common.createSession];
if (!values.every((value) => typeof value === "function")) throw new Error("an export is missing");
if (!(new RawNumber("1") instanceof common.RawNumber)) throw new Error("two kinds of RawNumber");

const names = (guard) => Object.keys(guard).join();
assert.equal(names(settles("client_wins")), names(conflicts("client_wins")));

/** A server of one message each. */
const heard = [];
class Socket {
  bufferedAmount = 0;
  constructor() {
    queueMicrotask(() => this.onopen({}));
  }
  send(data) {
    const { type, payload, correlation_id } = JSON.parse(data);
    heard.push([type, Object.keys(payload).sort().join()]);
    if (type === 7) this.answer(8, { session_id: "s", user_id: "u", version: 3, epoch: "e" }, null);
    const done = { version: 4, prev_version: 3, epoch: "e", changes: { a: 1 }, deleted_keys: [] };
    if (type === 5) this.answer(5, done, correlation_id);
  }
  answer(type, payload, correlation_id) {
    const data = JSON.stringify({ type, payload, correlation_id, timestamp: 1 });
    queueMicrotask(() => this.onmessage({ data }));
  }
  close() {}
}

globalThis.WebSocket = Socket;
for (const file of ["../dist/index.js", "../dist/index.cjs", "../dist/node.js"]) {
  heard.length = 0;
  const session = await (await import(file)).connect({ url: "ws://x", token: "t", deviceId: "d" });
  assert.equal(await session.set("a", 1).acknowledged(5_000), 4);
  assert.deepEqual([session.sessionId, session.version, session.state], ["s", 4, { a: 1 }]);
  assert.deepEqual(heard, [
    [7, "acked,device_id,stream,token"],
    [5, "key,operation,seq,stream,value"],
  ]);
  await session.close();
}
