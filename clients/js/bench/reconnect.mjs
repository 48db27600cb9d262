// Milliseconds from a server that accepts connections again until its client is ready again, each
// client with its defaults. The server is killed with SIGKILL and its connections are refused for a
// time, the same for all: another server is ready by then, so that no start counts.
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, connect as tcp } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { build } from "esbuild";

const PATIENCE = 90_000;
const here = import.meta.dirname;

const accepts = (port) =>
  new Promise((done) => {
    const socket = tcp(port, "127.0.0.1");
    socket.once("connect", () => socket.destroy() && done(true));
    socket.once("error", () => done(false));
  });
async function until(isTrue) {
  for (const end = performance.now() + PATIENCE; performance.now() < end; await sleep(2))
    if (await isTrue()) return performance.now();
  throw new Error("not in time");
}
/** A way to a server that can be closed. */
async function relay(port) {
  const pairs = new Set();
  const server = createServer((client) => {
    const onward = tcp(target, "127.0.0.1");
    pairs.add(client).add(onward);
    for (const [one, other] of [
      [client, onward],
      [onward, client],
    ]) {
      one.pipe(other);
      one.on("error", () => {});
      one.on("close", () => other.destroy());
    }
  });
  let target = 0;
  return {
    url: `http://127.0.0.1:${port}`,
    open: (to) => {
      target = to;
      return new Promise((done) => server.listen(port, "127.0.0.1", done));
    },
    close: () => {
      server.close();
      for (const one of pairs) one.destroy();
      pairs.clear();
    },
  };
}

async function killed(child) {
  const gone = new Promise((done) => child.once("exit", done));
  child.kill("SIGKILL");
  await gone;
}

/** Servers that are processes, one after another: each is ready before the one before it is killed. */
async function programs(port, command, args) {
  let child;
  let at = port;
  const start = async () => {
    at = at === port ? port + 10 : port;
    const next = spawn(command, args(at), { stdio: "ignore" });
    const missing = new Promise((_, reject) => next.once("error", reject));
    await Promise.race([until(() => accepts(at)), missing]);
    const old = child;
    child = next;
    return { port: at, kill: () => killed(old) };
  };
  await start();
  return { port: at, next: start, close: () => killed(child) };
}

const KINDS = {
  async "@syncbridge/client"(_port, way) {
    const outfile = join(here, ".cache/server.mjs");
    mkdirSync(join(here, ".cache"), { recursive: true });
    await build({
      entryPoints: [join(here, "../test/support/server.ts")],
      ...{ bundle: true, platform: "node", format: "esm", outfile, logLevel: "error" },
    });
    const { Site, mint } = await import(outfile);
    const { connect } = await import("../dist/node.js");
    const first = await Site.start();
    let site = first;
    await way.open(site.port);
    const session = await connect({ url: way.url, token: mint("u"), deviceId: "d" });
    return {
      ready: () => session.status === "online",
      async next() {
        const old = site;
        site = await first.beside();
        return { port: site.port, kill: () => old.kill() };
      },
      async close() {
        await session.close().catch(() => {});
        if (site !== first) await site.close();
        await first.close();
      },
    };
  },
  async "socket.io-client"(port, way) {
    const { io } = await import("socket.io-client");
    const source = `import { Server } from "socket.io"; new Server(Number(process.argv[2]));`;
    const file = join(here, ".cache/socketio.mjs");
    mkdirSync(join(here, ".cache"), { recursive: true });
    writeFileSync(file, source);
    const servers = await programs(port, process.execPath, (at) => [file, String(at)]);
    await way.open(servers.port);
    const socket = io(way.url, { transports: ["websocket"] });
    return {
      ready: () => socket.connected,
      next: servers.next,
      async close() {
        socket.close();
        await servers.close();
      },
    };
  },
  async "y-websocket"(port, way) {
    const { Doc } = await import("yjs");
    const { WebsocketProvider } = await import("y-websocket");
    const { WebSocket } = await import("ws");
    const file = join(here, "node_modules/@y/websocket-server/src/server.js");
    const run = (at) => ["HOST=127.0.0.1", `PORT=${at}`, process.execPath, file];
    const servers = await programs(port, "env", run);
    await way.open(servers.port);
    const url = way.url.replace("http", "ws");
    const options = { WebSocketPolyfill: WebSocket };
    const provider = new WebsocketProvider(url, "r", new Doc(), options);
    return {
      ready: () => provider.wsconnected && provider.synced,
      next: servers.next,
      async close() {
        provider.destroy();
        await servers.close();
      },
    };
  },
  async partysocket(port, way) {
    const { WebSocket: Reconnecting } = await import("partysocket");
    const { WebSocket } = await import("ws");
    const source = `import { WebSocketServer } from "ws";
      new WebSocketServer({ port: Number(process.argv[2]), host: "127.0.0.1" });`;
    const file = join(here, ".cache/ws.mjs");
    mkdirSync(join(here, ".cache"), { recursive: true });
    writeFileSync(file, source);
    const servers = await programs(port, process.execPath, (at) => [file, String(at)]);
    await way.open(servers.port);
    const socket = new Reconnecting(way.url.replace("http", "ws"), [], { WebSocket });
    return {
      ready: () => socket.readyState === WebSocket.OPEN,
      next: servers.next,
      async close() {
        socket.close();
        await servers.close();
      },
    };
  },
  async centrifuge(port, way) {
    const { Centrifuge } = await import("centrifuge");
    const { WebSocket } = await import("ws");
    const folder = mkdtempSync(join(tmpdir(), "centrifugo-"));
    const config = (at) => {
      const file = join(folder, `${at}.json`);
      const server = { address: "127.0.0.1", port: String(at) };
      writeFileSync(file, JSON.stringify({ client: { insecure: true }, http_server: server }));
      return ["--config", file];
    };
    const servers = await programs(port, process.env.CENTRIFUGO ?? "centrifugo", config);
    await way.open(servers.port);
    const url = `${way.url.replace("http", "ws")}/connection/websocket`;
    const client = new Centrifuge(url, { websocket: WebSocket });
    client.connect();
    return {
      ready: () => client.state === "connected",
      next: servers.next,
      async close() {
        client.disconnect();
        await servers.close();
        rmSync(folder, { recursive: true, force: true });
      },
    };
  },
};

/** Times of one client by length of the outage, in the order of the rounds. */
export async function reconnects(name, rounds, outages, port) {
  const way = await relay(port + 100);
  const { ready, next, close } = await KINDS[name](port, way);
  const times = new Map(outages.map((outage) => [outage, []]));
  try {
    await until(ready);
    for (let round = 0; round < rounds; round++)
      for (const outage of outages) {
        const server = await next();
        await sleep(6_000); // a connection that has lived lets the waits start small again
        const began = performance.now();
        way.close();
        await server.kill();
        await until(() => !ready());
        await sleep(Math.max(0, outage - (performance.now() - began)));
        await way.open(server.port);
        const from = performance.now();
        times.get(outage).push((await until(ready)) - from);
      }
  } finally {
    way.close();
    await close();
  }
  return times;
}
