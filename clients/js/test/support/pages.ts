/** Pages of a site in a real Chromium, with the built client, and what a test does to them. */
import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { type Browser, chromium, type Page } from "playwright-core";
import { until, within } from "./server";

export const HOME = join(import.meta.dirname, "../..");
const MAP = {
  "@syncbridge/client": "/dist/index.js",
  "@syncbridge/client/offline": "/dist/offline.js",
  "@syncbridge/client/voice": "/dist/voice.js",
};
const IMPORTS = `<!doctype html><script type="importmap">${JSON.stringify({ imports: MAP })}</script>`;
export const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
export const FLAGS = [
  "no-sandbox disable-gpu disable-quic no-first-run disable-sync",
  "disable-background-networking disable-component-update",
]
  .join(" ")
  .split(" ")
  .map((flag) => `--${flag}`);

export function launch(...flags: string[]): Promise<Browser> {
  return chromium.launch({
    executablePath: CHROMIUM,
    args: [...FLAGS, ...flags],
    ignoreDefaultArgs: ["--disable-back-forward-cache"],
  });
}

const TYPES: Record<string, string> = {
  js: "text/javascript",
  mjs: "text/javascript",
  html: "text/html",
};

/** What a web server has beside pages. */
interface Serving {
  /** What `/login` answers. */
  login: () => object;
  /** What is posted to `/told`. */
  told?: (text: string) => void;
  /** A folder of files that are at `/built` and `/assets`. */
  built?: string;
}

/** A web server. `html`: pages by path. */
export function serve(port: number, html: Record<string, string>, serving: Serving): Server {
  const { login, told, built = HOME } = serving;
  const file = (path: string) => {
    if (path.startsWith("/dist/")) return readFile(join(HOME, path));
    if (path.startsWith("/assets/")) return readFile(join(built, path));
    if (path.startsWith("/built/")) return readFile(join(built, path.slice("/built".length)));
    return undefined;
  };
  return createServer(async (request, answer) => {
    const { url = "/" } = request;
    if (url === "/login") return answer.end(JSON.stringify(login()));
    if (url === "/told") {
      told?.(await text(request));
      return answer.end();
    }
    const page = html[url] === undefined ? undefined : IMPORTS + html[url];
    const body = page ?? (await file(url)?.catch(() => undefined));
    const ending = page === undefined ? url.split(".").at(-1)! : "html";
    answer.setHeader("Content-Type", TYPES[ending] ?? "text/plain");
    answer.writeHead(body === undefined ? 404 : 200).end(body);
  }).listen(port, "127.0.0.1");
}

/** Processes of pages. */
async function renderers(browser: Browser): Promise<number[]> {
  const session = await within("a session with the browser", browser.newBrowserCDPSession());
  const asked = session.send("SystemInfo.getProcessInfo");
  const { processInfo } = await within("the browser's processes", asked);
  await within("the end of that session", session.detach());
  return processInfo.filter((p) => p.type === "renderer").map((p) => p.id);
}

/**
 * SIGKILL to the process of a page: nothing in it runs any more. A browser has one in reserve, which
 * is killed, too; it must know that before it opens another page, which would be given that one.
 */
export async function killPage(browser: Browser, page: Page): Promise<void> {
  const crashed = new Promise((done) => page.once("crash", done));
  const killed = await renderers(browser);
  for (const id of killed) process.kill(id, "SIGKILL");
  await Promise.race([crashed, sleep(10_000)]);
  await until(
    async () => !(await renderers(browser)).some((id) => killed.includes(id)),
    20_000,
    () => "the browser knows that its pages were killed",
  );
}
