// The JavaScript client under `syncbridge client-check`: commands on stdin, answers on stdout.
import { createInterface } from "node:readline";
import { createSession } from "../js/dist/node.js";

const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const events = [];
const waiting = [];
const lost = [];
let session;

function token() {
  say({ ask: "token" });
  return new Promise((resolve) => waiting.push(resolve));
}

function open({ url, device_id: deviceId }) {
  const times = { connectTimeout: 3_000, ackTimeout: 2_000, backoffCap: 1_000 };
  session = createSession({ url, deviceId, token, ...times });
  for (const name of ["refused", "closed", "disconnected", "draining", "reset", "lost"])
    session.on(name, () => events.push(name));
  session.on("lost", (event) => lost.push(event));
  session.on("error", ({ code }) => events.push(code));
}

function look() {
  const { state, status, version, pending, devices } = session;
  const me = Object.fromEntries(devices.map((device) => [device.deviceId, device.me]));
  return { state, status, version, pending: pending.length, events, me };
}

function answer({ do: name, args = [], ...rest }) {
  if (name === "connect") return open(rest);
  if (name === "look") return look();
  if (name === "close") return void session.close().catch(() => {});
  if (name === "say") return session.setMe(...args);
  if (name === "resend") return lost.forEach((event) => event.resend());
  session[name](...args);
}

for await (const line of createInterface({ input: process.stdin })) {
  const message = JSON.parse(line);
  if (message.token !== undefined) {
    waiting.shift()?.(message.token);
    continue;
  }
  try {
    say({ id: message.id, ok: true, ...answer(message) });
  } catch (error) {
    say({ id: message.id, ok: false, code: error.code ?? String(error) });
  }
}
