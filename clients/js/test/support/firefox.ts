/** Debian's Firefox by WebDriver BiDi. It cannot be told to freeze a page. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Browser, Profile, Tab } from "./browsers";
import { Driven } from "./driven";

/** Nothing but the pages of a test goes over the network. */
const PREFERENCES = {
  "app.update.enabled": false,
  "browser.shell.checkDefaultBrowser": false,
  "datareporting.policy.dataSubmissionEnabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "remote.prefs.recommended": true,
  "services.settings.server": "data:,",
};

type Evaluated = { result?: { value: string }; exceptionDetails?: { text: string } };

export async function firefoxBrowser(): Promise<Browser> {
  const browser = await Driven.launch({
    program: process.env.FIREFOX ?? "firefox-esr",
    prepare(profile) {
      const line = ([name, value]: [string, unknown]) =>
        `user_pref("${name}", ${JSON.stringify(value)});`;
      writeFileSync(join(profile, "user.js"), Object.entries(PREFERENCES).map(line).join("\n"));
    },
    flags: (profile) => [
      "--headless",
      "--no-remote",
      "--profile",
      profile,
      "--remote-debugging-port",
      "0",
    ],
    address: /WebDriver BiDi listening on (ws:\S+)/,
    path: "/session",
  });
  await browser.send("session.new", { capabilities: {} });
  return {
    close: () => browser.close(),
    renderers: async () => renderers(browser.process.pid!),
    async profile(): Promise<Profile> {
      type Made = { userContext: string };
      const { userContext } = await browser.send<Made>("browser.createUserContext", {});
      return {
        close: () => browser.send("browser.removeUserContext", { userContext }),
        open: (url) => opened(browser, userContext, url),
      };
    },
  };
}

async function opened(browser: Driven, userContext: string, url: string): Promise<Tab> {
  const wanted = { type: "tab", userContext };
  const { context } = await browser.send<{ context: string }>("browsingContext.create", wanted);
  await browser.send("browsingContext.navigate", { context, url, wait: "complete" });
  return {
    close: () => browser.send("browsingContext.close", { context }),
    async evaluate(expression) {
      const { result, exceptionDetails } = await browser.send<Evaluated>("script.evaluate", {
        target: { context },
        expression: `(async () => JSON.stringify((await (${expression})) ?? null))()`,
        awaitPromise: true,
      });
      if (!result) throw new Error(`${expression}: ${exceptionDetails?.text}`);
      return JSON.parse(result.value);
    },
  };
}

/** The end of the command line of a process that is there for pages. */
const PAGE = /[\s\0]tab\0*$/;

/** Processes of pages, also of none yet: children of the fork server, which is one of Firefox. */
function renderers(firefox: number): number[] {
  const descends = (pid: number): boolean => {
    if (pid <= 1) return false;
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    const parent = Number(/^PPid:\s*(\d+)/m.exec(status)?.[1]);
    return parent === firefox || descends(parent);
  };
  const all = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return all.map(Number).filter((pid) => {
    try {
      return PAGE.test(readFileSync(`/proc/${pid}/cmdline`, "utf8")) && descends(pid);
    } catch {
      return false; // it has ended meanwhile
    }
  });
}
