// What 1,000 keys of `{x, text}` cost in Node: heap after, less heap before. `node --expose-gc`.
const KEYS = 1_000;
const value = (i) => ({ x: i, text: `value number ${i}` });
const heap = () => {
  for (let i = 0; i < 5; i++) gc();
  return process.memoryUsage().heapUsed;
};

/** A server of one answer: the welcome with a state. */
function socketWith(state) {
  return class {
    bufferedAmount = 0;
    constructor() {
      setTimeout(() => this.onopen({}));
    }
    send(text) {
      const { correlation_id } = JSON.parse(text);
      const payload = { session_id: "s", user_id: "u", version: 1, epoch: "e", state_data: state };
      const data = JSON.stringify({ type: 8, payload, correlation_id, timestamp: 1 });
      setTimeout(() => this.onmessage({ data }));
    }
    close() {}
  };
}

const state = (count) => {
  const entries = Array.from({ length: count }, (_, i) => [`key-${i}`, value(i)]);
  return Object.fromEntries(entries);
};

const KINDS = {
  async "@syncbridge/client"(count) {
    const { connect } = await import("../dist/index.js");
    globalThis.WebSocket = socketWith(state(count));
    const session = await connect({ url: "ws://x", token: "t", deviceId: "d" });
    delete globalThis.WebSocket;
    return session;
  },
  async yjs(count) {
    const Y = await import("yjs");
    const [here, there] = [new Y.Doc(), new Y.Doc()];
    const map = there.getMap("state");
    for (const [key, it] of Object.entries(state(count))) map.set(key, it);
    Y.applyUpdate(here, Y.encodeStateAsUpdate(there));
    return here;
  },
  async "a plain object"(count) {
    return JSON.parse(JSON.stringify(state(count)));
  },
};

const make = KINDS[process.argv[2]];
const kept = [await make(1)];
await new Promise((done) => setTimeout(done, 100));
const before = heap();
kept.push(await make(KEYS));
await new Promise((done) => setTimeout(done, 100));
console.log(Math.round((heap() - before) / 1024), kept.length);
process.exit(0);
