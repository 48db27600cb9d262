/** Where a session takes its access tokens from. Times are milliseconds. */
import { ClientError, UnauthorizedError } from "./errors";
import { NEVER } from "./pacing";
import { MARGIN } from "./waits";

/** A token, or a function that returns one that is good now. */
export type Token = string | (() => string | Promise<string>);

export function margin(life: number): number {
  return Math.min(MARGIN, life / 5);
}

/** There is no token to connect with; unless it is `retryable` there will be none. */
export class NoToken extends ClientError {
  constructor(message: string, retryable: boolean, cause?: unknown) {
    super("no_token", message, retryable, { cause });
  }
}

/** The token of one session: a fixed text, or one that a function renews. */
export class TokenKeeper {
  #token = "";
  #until = NEVER;
  #asking: Promise<string> | undefined;
  /** The last token for a connection was not a new one, or was accepted: another one may be, too. */
  old = false;

  constructor(
    private readonly source: Token,
    private readonly withDeadline: <T>(work: Promise<T>) => Promise<T>,
  ) {
    if (!source) throw new TypeError("token: text or a function is expected");
    if (typeof source === "string") this.#token = source;
  }

  /** Whether a new token can be had. */
  get renewable(): boolean {
    return typeof this.source !== "string";
  }

  /** The program has a new token. */
  replace(token: string): void {
    this.#token = token;
    this.#until = NEVER;
  }

  /** A token was accepted, and is good until then. */
  expireAt(moment: number): void {
    this.old = true;
    this.#until = moment;
  }

  /** The server does not take the present token any more. */
  spent(): void {
    this.#until = -NEVER;
  }

  /** A token for a new connection, renewed when it is about to end; throws NoToken. */
  async current(now: number): Promise<string> {
    const good = now < this.#until || (!this.renewable && this.#until !== -NEVER);
    this.old = good && this.#token !== "";
    return this.old ? this.#token : this.renewed();
  }

  /** A new token; throws NoToken. However many wait for it, the function is called once. */
  renewed(): Promise<string> {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = undefined;
    });
    return this.#asking;
  }

  async #ask(): Promise<string> {
    const { source } = this;
    if (typeof source === "string") throw new NoToken("the token has expired", false);
    try {
      const token = await this.withDeadline((async () => source())());
      if (typeof token !== "string" || !token) throw new TypeError("token() returned no text");
      this.replace(token);
      return token;
    } catch (error) {
      throw new NoToken(`no new token: ${String(error)}`, !isFinal(error), error);
    }
  }
}

/** Whether asking again is pointless: the login itself is over. */
function isFinal(error: unknown): boolean {
  if (error instanceof UnauthorizedError) return true;
  const status = (error as { status?: unknown } | null)?.status;
  return typeof status === "number" && status >= 400 && status < 500 && status !== 429;
}
