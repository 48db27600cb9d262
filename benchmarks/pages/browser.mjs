/**
 * A Chromium that opens pages, told by lines of its standard input.
 *
 *     open URL   in a context of its own, so nothing is cached; answers {"paint", "content"}: ms
 *                from the start of the navigation to the first paint, and to the first with content
 *     close      answers {}
 *
 * It ends with its input.
 */
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(new URL("../../pages/package.json", import.meta.url));
const { chromium } = require("playwright-core");
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"];

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: FLAGS,
});
let context;

async function open(url) {
  context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(url);
  await page.getByRole("heading", { name: "Overview" }).waitFor({ timeout: 60_000 });
  await page.getByText(/^(Live|Every 5 s), /).waitFor({ timeout: 60_000 });
  const entries = await page.evaluate(() =>
    performance.getEntriesByType("paint").map(({ name, startTime }) => [name, startTime]),
  );
  const { "first-paint": paint, "first-contentful-paint": content } = Object.fromEntries(entries);
  return { paint, content };
}

async function close() {
  await context?.close();
  context = undefined;
  return {};
}

for await (const line of createInterface(process.stdin)) {
  const [what, url] = line.split(" ");
  const answer = await (what === "open" ? open(url) : close());
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
