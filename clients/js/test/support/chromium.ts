/** Chromium by its DevTools protocol: unlike under Playwright, its pages can be frozen. */
import type { Browser, Profile, Tab } from "./browsers";
import { Driven } from "./driven";
import { CHROMIUM, FLAGS } from "./pages";

type Info = { processInfo: { type: string; id: number }[] };
type Evaluated = { result: { value: string }; exceptionDetails?: { text: string } };

export async function chromiumBrowser(): Promise<Browser> {
  const browser = await Driven.launch({
    program: CHROMIUM,
    flags: (profile) => [
      ...FLAGS,
      "--headless",
      "--remote-debugging-port=0",
      `--user-data-dir=${profile}`,
    ],
    address: /DevTools listening on (ws:\S+)/,
  });
  return {
    close: () => browser.close(),
    async renderers() {
      const { processInfo } = await browser.send<Info>("SystemInfo.getProcessInfo", {});
      return processInfo.filter(({ type }) => type === "renderer").map(({ id }) => id);
    },
    async profile(): Promise<Profile> {
      type Made = { browserContextId: string };
      const { browserContextId } = await browser.send<Made>("Target.createBrowserContext", {});
      return {
        close: () => browser.send("Target.disposeBrowserContext", { browserContextId }),
        open: (url) => opened(browser, browserContextId, url),
      };
    },
  };
}

async function opened(browser: Driven, browserContextId: string, url: string): Promise<Tab> {
  const wanted = { url: "about:blank", browserContextId };
  const { targetId } = await browser.send<{ targetId: string }>("Target.createTarget", wanted);
  const attach = { targetId, flatten: true };
  const { sessionId } = await browser.send<{ sessionId: string }>("Target.attachToTarget", attach);
  await browser.send("Page.navigate", { url }, sessionId);
  return {
    close: () => browser.send("Target.closeTarget", { targetId }),
    freeze: (frozen) =>
      browser.send("Page.setWebLifecycleState", { state: frozen ? "frozen" : "active" }, sessionId),
    async evaluate(expression) {
      const { result, exceptionDetails } = await browser.send<Evaluated>(
        "Runtime.evaluate",
        {
          expression: `(async () => JSON.stringify((await (${expression})) ?? null))()`,
          awaitPromise: true,
        },
        sessionId,
      );
      if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.text}`);
      return JSON.parse(result.value);
    },
  };
}
