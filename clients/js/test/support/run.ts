/**
 * A scripted run: two tabs of one device change a session while everything around them breaks, and
 * a checker looks for what was lost or doubled.
 */
import { randomUUID } from "node:crypto";
import type { Server } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { Session } from "../../src/core/session";
import { connect } from "../../src/node";
import type { Browser, Profile, Tab } from "./browsers";
import { seeded } from "./clock";
import { serve } from "./pages";
import { freePort } from "./ports";
import { FaultyProxy } from "./proxy";
import { mint, Site, until } from "./server";

export type State = { n: number; log: string[] };

/** The machine sleeps so long: more than a leader's silence, and a token's life. */
const SLEEP = 4_000;
const SHORT_LIFE = 3;
const PATIENCE = 60_000;

/**
 * Each operation is an item of `log` and one of `n`. `told`: an update is safe, so that whatever
 * happens it counts. `naive`: the page's socket forgets streams and numbers, and gives an update
 * that is sent again another id.
 */
const page = (naive: boolean) => `<script type="module">
  ${naive ? NAIVE : ""}
  import { createSession } from "@syncbridge/client";
  import { offline } from "@syncbridge/client/offline";
  const login = async () => (await fetch("/login")).json();
  const { url, user } = await login();
  const token = async () => (await login()).token;
  const life = crypto.randomUUID();
  const tab = createSession({ url, token, deviceId: "tab", store: offline({ user }), backoffCap: 1000 });
  Object.assign(globalThis, { tab, login, problems: [], events: [], synced: [], losses: 0, made: 0 });
  for (const name of ["storage", "refused", "closed"])
    tab.on(name, (event) => problems.push(name + " " + (event.message ?? event.reason ?? event.error)));
  tab.on("lost", ({ count, resend }) => {
    losses += count;
    resend();
  });
  tab.on("status", (status) => {
    events.push(status);
    const began = performance.now();
    if (status === "online")
      void tab.synced().then(() => events.push("synced") && synced.push(performance.now() - began));
  });
  globalThis.make = (count) => {
    for (let i = 0; i < count; i++) {
      const id = life + "-" + made++;
      tab.append("log", id);
      tab.incr("n");
      void tab.stored().then((safe) => safe && fetch("/told", { method: "POST", body: id }));
    }
  };
</script>`;

const NAIVE = `
  const names = new Map();
  globalThis.WebSocket = class extends WebSocket {
    send(data) {
      const message = JSON.parse(data);
      for (const name of ["stream", "seq", "acked"]) delete message.payload[name];
      if (message.type === 5) {
        const name = crypto.randomUUID();
        names.set(name, message.correlation_id);
        message.correlation_id = name;
      }
      super.send(JSON.stringify(message));
    }
    set onmessage(listener) {
      super.onmessage = listener && (({ data }) => {
        const message = JSON.parse(data);
        const id = names.get(message.correlation_id);
        listener({ data: JSON.stringify(id ? { ...message, correlation_id: id } : message) });
      });
    }
  };
`;

/** What is wrong with a state. `told`: what must be there; `kills`: pages that were killed. */
export function faultsOf({ n, log }: State, told: Iterable<string>, kills: number): string[] {
  const found = new Set(log);
  const lost = [...told].filter((id) => !found.has(id)).map((id) => `lost ${id}`);
  const doubled = log.filter((id, i) => log.indexOf(id) !== i).map((id) => `doubled ${id}`);
  const faults = [...lost, ...doubled];
  if (n > log.length) faults.push(`${n - log.length} increments doubled`);
  // A page that is killed amid an operation has kept the first half of it.
  if (n < log.length - kills) faults.push(`${log.length - n} increments lost`);
  return faults;
}

/** Where the runs of one browser take place: a server that may be killed, and a site of pages. */
export class Stage {
  login: () => object = () => ({});
  told: (id: string) => void = () => {};

  private constructor(
    readonly site: Site,
    readonly browser: Browser,
    readonly address: string,
    private readonly pages: Server,
  ) {}

  static async build(launch: () => Promise<Browser>): Promise<Stage> {
    const port = await freePort();
    const address = `http://127.0.0.1:${port}`;
    const site = await Site.start({ SYNCBRIDGE_ORIGINS: address });
    const html = { "/": page(false), "/naive": page(true) };
    const pages = serve(port, html, { login: () => stage.login(), told: (id) => stage.told(id) });
    const stage = new Stage(site, await launch(), address, pages);
    return stage;
  }

  async close(): Promise<void> {
    await this.browser.close();
    this.pages.close();
    await this.site.close();
  }
}

export class Run {
  readonly told = new Set<string>();
  readonly tabs: Tab[] = [];
  readonly #problems: string[] = [];
  /** Milliseconds from a connection until all was acknowledged. */
  readonly synced: number[] = [];
  readonly #random: () => number;
  #life = 900;
  #kills = 0;
  #expired = 0;
  #logins = 0;

  private constructor(
    private readonly stage: Stage,
    private readonly profile: Profile,
    private readonly proxy: FaultyProxy,
    private readonly phone: Session<State>,
    private readonly user: string,
    private readonly path: string,
    seed: number,
  ) {
    this.#random = seeded(seed);
    stage.told = (id) => this.told.add(id);
    stage.login = () => {
      this.#logins += 1;
      const ttl = this.#expired-- > 0 ? -10 : this.#life;
      return { url: proxy.url, token: mint(this.user, {}, ttl), user: this.user };
    };
    this.phone.on("closed", ({ reason }) => this.#problems.push(`phone: ${reason}`));
  }

  static async start(stage: Stage, seed: number, tabs = 2, path = "/"): Promise<Run> {
    const proxy = await FaultyProxy.start(stage.site.port);
    const profile = await stage.browser.profile();
    const user = randomUUID();
    const phone = await connect<State>({
      url: stage.site.url,
      token: () => mint(user),
      deviceId: "phone",
      startTimeout: 0,
    });
    const run = new Run(stage, profile, proxy, phone, user, path, seed);
    await phone.online(PATIENCE);
    for (let i = 0; i < tabs; i++) await run.#open();
    await run.#make(2);
    await run.#converged();
    return run;
  }

  async close(): Promise<void> {
    await this.profile.close();
    await this.phone.close().catch(() => {});
    await this.proxy.close();
  }

  /** Let things go wrong, with operations before, meanwhile and after. */
  async play(steps: readonly Fault[]): Promise<void> {
    for (const step of steps) {
      this.proxy.delay = Math.floor(this.#random() * 40);
      await this.#make(1 + Math.floor(this.#random() * 4));
      await FAULTS[step](this);
      await this.#make(1);
      await this.#converged();
    }
  }

  /** What is wrong after all, and the state of a device that has just come. */
  async result(): Promise<{ faults: string[]; state: State }> {
    const look = { url: this.stage.site.url, token: mint(this.user), deviceId: "checker" };
    const session = await connect<State>({ ...look, startTimeout: PATIENCE });
    const state = session.state as State;
    await session.close();
    const faults = faultsOf(state, this.told, this.#kills);
    for (const tab of this.tabs) {
      const [problems, log, events] = await tab.evaluate<[string[], string[], string[]]>(
        '[problems, tab.get("log"), events]',
      );
      faults.push(...problems);
      if (JSON.stringify(log) !== JSON.stringify(state.log)) faults.push("a tab has another list");
      if (events.some((event, i) => event === "synced" && !/online|synced/.test(events[i - 1]!)))
        faults.push(`acknowledged without a connection: ${events}`);
      this.synced.push(...(await tab.evaluate<number[]>("synced")));
    }
    return { faults: [...faults, ...this.#problems], state };
  }

  async #open(): Promise<void> {
    const tab = await this.profile.open(`${this.stage.address}${this.path}`);
    await until(() => tab.evaluate<boolean>("globalThis.make !== undefined"), PATIENCE);
    this.tabs.push(tab);
  }

  async #make(count: number, tabs = this.tabs): Promise<void> {
    for (const tab of tabs) await tab.evaluate(`make(${count})`);
  }

  async #converged(): Promise<void> {
    const ready = 'tab.status === "online" && !tab.pending.length';
    for (const tab of this.tabs) await until(() => tab.evaluate<boolean>(ready), PATIENCE);
    const log = await this.tabs[0]!.evaluate<string[]>('tab.get("log")');
    await until(() => this.phone.get("log")?.length === log.length, PATIENCE);
  }

  async #offline(): Promise<void> {
    for (const tab of this.tabs)
      await until(() => tab.evaluate<boolean>('tab.status !== "online"'), PATIENCE);
  }

  // What goes wrong

  async cut(): Promise<void> {
    this.proxy.cut();
    await this.#make(2);
  }

  /** There is no network for a while. */
  async away(): Promise<void> {
    this.proxy.fault = "refuse";
    this.proxy.cut();
    await this.#offline();
    await this.#make(3);
    this.proxy.fault = "none";
  }

  /** Updates arrive, and their answers do not. */
  async deaf(): Promise<void> {
    await this.#converged();
    this.proxy.fault = "deaf";
    const before = this.phone.get("log")!.length;
    await this.#make(3);
    await until(() => this.phone.get("log")!.length > before, PATIENCE);
    this.proxy.cut();
    this.proxy.fault = "none";
  }

  async server(): Promise<void> {
    await this.stage.site.kill();
    await this.#make(2);
    await this.stage.site.startServer();
  }

  /** kill -9 of every page, amid of what it does. */
  async crash(): Promise<void> {
    const processes = await this.#processes();
    for (const pid of processes) kill(pid, "SIGKILL");
    // A page that is opened before the browser has noticed would be given to one of them.
    const gone = async () => {
      const left = await this.stage.browser.renderers();
      return !left.some((pid) => processes.includes(pid));
    };
    await until(gone, PATIENCE);
    const { length } = this.tabs;
    this.#kills += length;
    for (const tab of this.tabs.splice(0)) await tab.close();
    for (let i = 0; i < length; i++) await this.#open();
  }

  async freeze(): Promise<void> {
    const [first, ...others] = this.tabs;
    await first!.freeze?.(true);
    await until(() => first!.evaluate<boolean>('events.at(-1) === "sleeping"'), PATIENCE);
    await this.#make(2, others);
    for (const tab of others)
      await until(() => tab.evaluate<boolean>('tab.status === "online"'), PATIENCE);
    await first!.freeze?.(false);
  }

  /** The lid is closed: no process of a page runs, and the token ends meanwhile. */
  async sleep(): Promise<void> {
    await this.#shortToken();
    const processes = await this.#processes();
    for (const pid of processes) kill(pid, "SIGSTOP");
    await sleep(SLEEP);
    for (const pid of processes) kill(pid, "SIGCONT");
  }

  /** The token ends soon, and the next one that is offered has ended already. */
  async tokens(): Promise<void> {
    await this.#shortToken();
    this.#expired = 1;
    const before = this.#logins;
    await until(() => this.#logins > before + 1, PATIENCE);
  }

  async #shortToken(): Promise<void> {
    this.#life = SHORT_LIFE;
    await this.tabs[0]!.evaluate("login().then(({ token }) => tab.authenticate(token))");
    this.#life = 900;
  }

  /** The tab that leads is closed, and another one is opened. */
  async leader(): Promise<void> {
    await this.tabs.shift()!.close();
    await this.#make(3);
    await this.#open();
  }

  /** Redis comes back as it was: what was acknowledged since then is lost, and made again. */
  async rollback(): Promise<void> {
    await this.#converged();
    await this.stage.site.save();
    await this.#make(4);
    await this.#converged();
    const before = await this.#losses();
    await this.stage.site.rollBack();
    await this.#make(2);
    await until(async () => (await this.#losses()) > before, PATIENCE);
    const all = () => {
      const log = new Set(this.phone.get("log"));
      return [...this.told].every((id) => log.has(id));
    };
    await until(all, PATIENCE);
  }

  /** Those of pages. */
  async #processes(): Promise<number[]> {
    const found = await this.stage.browser.renderers();
    if (!found.length) throw new Error("no process of a page");
    return found;
  }

  async #losses(): Promise<number> {
    const all = await Promise.all(this.tabs.map((tab) => tab.evaluate<number>("losses")));
    return all.reduce((sum, one) => sum + one, 0);
  }
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended by itself.
  }
}

const FAULTS = {
  cut: (run: Run) => run.cut(),
  away: (run: Run) => run.away(),
  deaf: (run: Run) => run.deaf(),
  server: (run: Run) => run.server(),
  crash: (run: Run) => run.crash(),
  sleep: (run: Run) => run.sleep(),
  tokens: (run: Run) => run.tokens(),
  leader: (run: Run) => run.leader(),
  rollback: (run: Run) => run.rollback(),
  freeze: (run: Run) => run.freeze(),
};
export type Fault = keyof typeof FAULTS;
const ALL = Object.keys(FAULTS) as Fault[];

/** The faults of one run; five runs in a row have all of them twice. */
export function script(run: number, freezes: boolean): Fault[] {
  const kinds = freezes ? ALL : ALL.filter((kind) => kind !== "freeze");
  return [0, 1, 2, 3].map((i) => kinds[(run * 4 + i) % kinds.length]!);
}
