// The example of the protocol's documentation, as it is printed, in a real Chromium and in Node.
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { NodeSocket } from "../../src/node/socket";
import { HOME, launch, serve } from "../support/pages";
import { freePort } from "../support/ports";
import { mint, Site, until } from "../support/server";

const printed = readFileSync(join(HOME, "../../docs/protocol.md"), "utf8");
const [, snippet] = /```js\n([\s\S]*?new WebSocket[\s\S]*?)```/.exec(printed)!;
const ANSWERS = [8, 2, 5, 12];

let site: Site;
let address: string;
let close: () => void;
beforeAll(async () => {
  const port = await freePort();
  address = `http://127.0.0.1:${port}`;
  site = await Site.start({ SYNCBRIDGE_ORIGINS: address });
  const pages = serve(port, { "/": "<p>a page</p>" }, { login: () => ({}) });
  close = () => pages.close();
});
afterAll(async () => {
  close?.();
  await site?.close();
});

const program = () =>
  `const token = ${JSON.stringify(mint(randomUUID()))};\n` +
  snippet!.replace("localhost:8080", `127.0.0.1:${site.port}`);
/** Answers to what was sent; the device hears of itself, too. */
const answers = (types: number[]) => types.filter((type) => ANSWERS.includes(type)).slice(0, 4);

it("works in a page", async () => {
  const browser = await launch();
  try {
    const page = await browser.newPage();
    const types: number[] = [];
    page.on("console", (line) =>
      line
        .args()[0]
        ?.evaluate((message: { type: number }) => message.type)
        .then((t) => types.push(t)),
    );
    await page.goto(address);
    await page.addScriptTag({ content: program() });
    await until(() => answers(types).length === 4);

    expect(answers(types)).toEqual(ANSWERS);
  } finally {
    await browser.close();
  }
});

/** Node 20 has none. */
class Socket extends NodeSocket {
  constructor(url: string) {
    super(url, "syncbridge.json.v1");
  }
}

it("works in Node", async () => {
  const types: number[] = [];
  const told = { log: (message: { type: number }) => types.push(message.type) };
  const run = new Function("WebSocket", "console", `${program()}; return ws;`);
  const ws = run(globalThis.WebSocket ?? Socket, told);
  await until(() => answers(types).length === 4);
  ws.close(1000);

  expect(answers(types)).toEqual(ANSWERS);
});
