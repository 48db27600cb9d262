/**
 * The tabs of one device share one connection and one queue.
 *
 * One tab leads: it holds a Web Lock, the database and the WebSocket. The others speak to it over a
 * BroadcastChannel, with the messages of the protocol, as if it was the server (`hub.ts`); what they
 * make stays in their own queues until it is told what became of it. So a tab that becomes the leader
 * sends again, with the same ids, what it was not told of, and the kept queue and outcomes tell it
 * apart from what is done.
 *
 * | role | left by |
 * |---|---|
 * | follower | the lock → leader; `sleep` → none |
 * | leader | `sleep`, `close` → none; the lock was stolen, another page has opened the database → follower |
 * | none (asleep, closed) | the next connection → follower |
 *
 * A follower that hears nothing of what it said for 3 s steals the lock. Two that believe to lead do
 * no harm: the database takes writes of the newer one only, nothing leaves that is not in it, and the
 * server closes the older connection of a device. The lock is let go of on `pagehide`: it would keep
 * the page out of the back/forward cache, and so would a message on an open channel.
 */
import type { Env } from "../core/env";
import { StorageError } from "../core/errors";
import type { Status } from "../core/events";
import type { Pending } from "../core/queue";
import type { Keeping, Store } from "../core/store";
import { fromText, type Json } from "../core/values";
import type { Disk, Snap } from "./disk";
import { Hub } from "./hub";
import { FollowerSocket, LeaderSocket, type Word } from "./sockets";

/** A leader that is silent for so long is replaced. */
const SILENT = 3_000;
/** What has arrived meanwhile is taken first. */
const GRACE = 50;
/** Between looks whether everything was handed over. */
const LOOK = 5;
const LEFT = 1000;

type Question = "state" | "stored";

export class Tabs implements Store {
  /** Where the leader's session is. */
  status: Status | undefined;
  readonly #me = Math.random().toString(36).slice(2);
  #keeping: Keeping | undefined;
  #channel: BroadcastChannel | undefined;
  /** It is there while this tab leads. */
  #hub: Hub | undefined;
  #socket: FollowerSocket | undefined;
  #window = 0;
  /** Ends the wait for the lock. */
  #waiting: AbortController | undefined;
  /** Lets go of the lock. */
  #release: (() => void) | undefined;
  #silence: ReturnType<typeof setTimeout> | undefined;
  readonly #questions = new Map<Question, ((answer: unknown) => void)[]>();
  #ended = false;

  constructor(
    private readonly name: string,
    private readonly disk: Disk,
  ) {
    disk.fenced = () => this.#demote();
  }

  get durable(): boolean {
    return this.disk.durable;
  }

  // Of the session

  surroundings(env: Env): Env {
    const lead = (url: string) =>
      new LeaderSocket(env.socket(url), this.#hub!, this.disk, () => this.#demote());
    return {
      ...env,
      socket: (url) => (this.#hub ? lead(url) : this.#follow()),
      local: () => !this.#hub,
    };
  }

  async open(keeping: Keeping): Promise<boolean> {
    this.#keeping = keeping;
    this.#ended = false;
    const { replica, bounds } = keeping.dialogue;
    this.#window = replica.queue.window;
    this.#wake();
    const snap = (await this.#ask("state")) as (Snap & { known: boolean }) | undefined;
    if (snap?.known && !replica.known) {
      const state = fromText(snap.state, bounds.numbers) as Record<string, Json>;
      keeping.adopt(replica.restore(state, snap.at));
    }
    return replica.known;
  }

  belongs(owner: string): boolean {
    return !this.#hub || this.disk.belongs(owner);
  }

  changed(): void {
    if (this.#hub) this.disk.changed();
  }

  finished(pending: Pending, error: Error | undefined): void {
    if (!this.#hub) return;
    this.disk.finished(pending, error);
    this.#hub.finished(pending);
  }

  moved(status: Status): void {
    this.#hub?.moved(status);
  }

  async stored(): Promise<boolean> {
    const { queue } = this.#keeping!.dialogue.replica;
    while (!this.#ended) {
      const hub = this.#hub;
      const safe = hub && (await this.disk.stored());
      if (hub && hub === this.#hub) return safe!;
      if (hub) continue;
      const handed = [...queue].every((p) => p.inFlight || p.ackVersion !== undefined);
      const answer = handed ? await this.#ask("stored") : await pause();
      if (answer !== undefined) return answer === true;
    }
    return false;
  }

  sleep(): void {
    if (this.#hub) this.disk.leave();
    this.#leave();
  }

  close(code: number, reason: string): void {
    this.#ended = true;
    if (this.#hub) {
      if (code !== LEFT) this.#hub.close(code, reason);
      this.disk.close();
    }
    this.#leave();
  }

  // Roles

  /** From none to follower, who may be the leader at once. */
  #wake(): void {
    if (this.#channel || this.#ended) return;
    this.#channel = new BroadcastChannel(this.name);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    this.#keeping!.dialogue.replica.queue.window = Number.POSITIVE_INFINITY;
    this.#wantLock(false);
    for (const question of this.#questions.keys()) this.#say({ kind: question });
  }

  #wantLock(steal: boolean): void {
    this.#waiting?.abort();
    const waiting = new AbortController();
    this.#waiting = waiting;
    const { signal } = waiting;
    navigator.locks
      .request(this.name, steal ? { steal } : { signal }, () => this.#hold(signal))
      .catch((error) => signal.aborted || (this.#release ? this.#demote() : this.#alone(error)));
  }

  /** The browser gives this page no lock, so it shares nothing and keeps nothing. */
  #alone(error: unknown): void {
    this.disk.durable = false;
    this.#keeping!.event("storage", new StorageError("no lock", error));
    void this.#hold(this.#waiting!.signal);
  }

  /** The lock is ours for as long as the promise is open. */
  #hold(signal: AbortSignal): Promise<void> | undefined {
    if (signal.aborted) return;
    return new Promise((release) => {
      this.#release = release;
      void this.#promote(release);
    });
  }

  async #promote(hold: () => void): Promise<void> {
    const keeping = this.#keeping!;
    this.#heard();
    this.#socket = undefined;
    await this.disk.open(keeping);
    if (this.#release !== hold) return this.disk.leave();
    keeping.dialogue.replica.queue.window = this.#window;
    this.status = undefined;
    this.#hub = new Hub(keeping, this.disk, (word) => this.#say(word));
    this.#say({ kind: "leader" });
    for (const question of this.#questions.keys()) this.#answered(question, undefined);
    keeping.link.reconnect();
  }

  /** The lock was stolen, or another page has opened the database. */
  #demote(): void {
    if (!this.#release) return;
    this.#drop();
    this.disk.leave();
    this.#keeping!.dialogue.replica.queue.window = Number.POSITIVE_INFINITY;
    this.#wantLock(false);
    this.#keeping!.link.reconnect();
  }

  #drop(): void {
    this.#hub = undefined;
    this.#waiting?.abort();
    this.#release?.();
    this.#release = undefined;
  }

  #leave(): void {
    this.#drop();
    this.#heard();
    this.#channel?.close();
    this.#channel = this.#socket = undefined;
    for (const question of this.#questions.keys()) this.#answered(question, undefined);
  }

  // As a follower

  #follow(): FollowerSocket {
    this.#wake();
    this.#socket = new FollowerSocket((word) => this.#say(word));
    return this.#socket;
  }

  #ask(question: Question): Promise<unknown> {
    return new Promise((resolve) => {
      this.#questions.set(question, [...(this.#questions.get(question) ?? []), resolve]);
      this.#say({ kind: question });
    });
  }

  #answered(question: Question, answer: unknown): void {
    const asked = this.#questions.get(question) ?? [];
    this.#questions.delete(question);
    for (const resolve of asked) resolve(answer);
  }

  #say(word: Omit<Word, "from">): void {
    this.#channel?.postMessage({ ...word, from: this.#me });
    if (!this.#hub && !this.#release && this.#channel)
      this.#silence ??= setTimeout(() => this.#silent(), SILENT);
  }

  #silent(): void {
    this.#silence = setTimeout(() => this.#wantLock(true), GRACE);
  }

  #heard(): void {
    clearTimeout(this.#silence);
    this.#silence = undefined;
  }

  #hear(word: Word): void {
    if (this.#hub) return this.#hub.hear(word);
    if (word.to !== undefined && word.to !== this.#me) return;
    switch (word.kind) {
      case "leader":
        return this.#newLeader();
      case "heard":
        return this.#heard();
      case "status":
        this.status = word.data as Status;
        return this.#socket?.ready ? this.#keeping!.move(this.status) : undefined;
      case "answer": {
        const [question, answer] = word.data as [Question, unknown];
        return this.#answered(question, answer);
      }
      case "hear":
      case "close":
        this.#socket?.hear(word);
    }
  }

  #newLeader(): void {
    this.#heard();
    for (const question of this.#questions.keys()) this.#say({ kind: question });
    this.#keeping!.link.reconnect();
  }
}

function pause(): Promise<undefined> {
  return new Promise((resolve) => setTimeout(resolve, LOOK));
}
