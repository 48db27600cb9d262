// What a smallest page gets of each client: bundled and minified by esbuild as an ES module, gzip -9.
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const PAGES = {
  "@syncbridge/client": `import { connect } from "@syncbridge/client";
    connect({ url: "x", token: "t", deviceId: "d" });`,
  "@syncbridge/client + /offline": `import { connect } from "@syncbridge/client";
    import { offline } from "@syncbridge/client/offline";
    connect({ url: "x", token: "t", deviceId: "d", store: offline({ user: "u" }) });`,
  "socket.io-client": `import { io } from "socket.io-client"; io("x");`,
  centrifuge: `import { Centrifuge } from "centrifuge"; new Centrifuge("x").connect();`,
  "yjs + y-websocket": `import * as Y from "yjs"; import { WebsocketProvider } from "y-websocket";
    new WebsocketProvider("x", "r", new Y.Doc());`,
  "yjs + y-websocket + y-indexeddb": `import * as Y from "yjs";
    import { WebsocketProvider } from "y-websocket"; import { IndexeddbPersistence } from "y-indexeddb";
    const doc = new Y.Doc(); new WebsocketProvider("x", "r", doc); new IndexeddbPersistence("r", doc);`,
  partysocket: `import { PartySocket } from "partysocket"; new PartySocket({ host: "x", room: "r" });`,
  "@liveblocks/client": `import { createClient } from "@liveblocks/client";
    createClient({ authEndpoint: "/x" }).enterRoom("r");`,
  ably: `import { Realtime } from "ably"; new Realtime({ authUrl: "/x" });`,
};

const here = import.meta.dirname;
const ours = (file) => join(here, "../dist", file);
const alias = {
  "@syncbridge/client/offline": ours("offline.js"),
  "@syncbridge/client": ours("index.js"),
};

/** KB by page; what is loaded later, when it is needed, does not count. */
export async function sizes() {
  const found = {};
  for (const [name, contents] of Object.entries(PAGES)) {
    const { outputFiles } = await build({
      stdin: { contents, resolveDir: here },
      ...{ bundle: true, minify: true, format: "esm", platform: "browser", target: "es2022" },
      ...{ splitting: true, outdir: "out", write: false, logLevel: "error", alias },
    });
    const first = outputFiles.find(({ path }) => path.endsWith("stdin.js"));
    const loaded = [first.text];
    for (const [, chunk] of first.text.matchAll(/(?:import|from)"\.\/([^"]+)"/g))
      loaded.push(outputFiles.find(({ path }) => path.endsWith(chunk)).text);
    found[name] = gzipSync(loaded.join("\n"), { level: 9 }).length / 1000;
  }
  return found;
}
