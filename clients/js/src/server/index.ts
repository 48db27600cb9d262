/**
 * The REST calls of a server, for back ends: `fetch`, with the types of the server's own description.
 *
 *     const api = createApi({ url: "https://sync.example.com", token: () => serviceToken() });
 *     const call = await api.post("/sessions", { body: { id: "call-1", type: "WebRTC" } });
 */
import { ClientError, RequestFailed } from "../core/errors";
import { asked } from "../core/pacing";
import { type Token, TokenKeeper } from "../core/tokens";
import { inTime } from "../core/update";
import { fromText, type Numbers, toText } from "../core/values";
import type { components, paths } from "./schema";

export { ClientError, RequestFailed, UnauthorizedError } from "../core/errors";
export type { Token } from "../core/tokens";
/** The types of bodies, by the names that `/openapi.json` gives them. */
export type Schemas = components["schemas"];

export type Method = "get" | "put" | "post" | "delete" | "patch";
/** Paths that have a method. */
export type PathOf<M extends Method> = {
  [P in keyof paths]: paths[P] extends { readonly [K in M]: object } ? P : never;
}[keyof paths];
type Operation<P extends keyof paths, M extends Method> = paths[P] extends {
  readonly [K in M]: infer O;
}
  ? O
  : never;

type Of<O, K extends string> = O extends { readonly parameters: { readonly [N in K]?: infer V } }
  ? NonNullable<V>
  : never;
type Param<O, K extends string> = [Of<O, K>] extends [never]
  ? object
  : object extends Of<O, K>
    ? { readonly [N in K]?: Of<O, K> }
    : { readonly [N in K]: Of<O, K> };
type Content<T> = T extends { readonly content: { readonly "application/json": infer B } }
  ? B
  : never;
type Body<O> = O extends { readonly requestBody: infer R }
  ? { readonly body: Content<R> }
  : O extends { readonly requestBody?: infer R }
    ? [NonNullable<R>] extends [never]
      ? object
      : { readonly body?: Content<NonNullable<R>> }
    : object;

/** What a call is given: parameters of the path, the query and the header, and a body. */
export type Given<P extends keyof paths, M extends Method> = Param<Operation<P, M>, "path"> &
  Param<Operation<P, M>, "query"> &
  Param<Operation<P, M>, "header"> &
  Body<Operation<P, M>>;
type Rest<G> = object extends G ? [given?: G] : [given: G];

/** What a call answers; undefined where there is no body. */
export type Answer<P extends keyof paths, M extends Method> =
  Operation<P, M> extends { readonly responses: infer R }
    ? { [S in keyof R]: [Content<R[S]>] extends [never] ? undefined : Content<R[S]> }[keyof R]
    : never;

/** A whole answer. */
export interface Reply<T> {
  readonly data: T;
  readonly status: number;
  readonly headers: Headers;
}

/** The server refused a call. `retryAfter`: milliseconds, 0 when it named none. */
export class ApiError extends ClientError {
  readonly status: number;
  readonly retryAfter: number;
  /** The members of the problem document. */
  readonly problem: Readonly<Record<string, unknown>>;
  constructor(status: number, retryAfter: number, problem: Readonly<Record<string, unknown>>) {
    const code = String(problem.code ?? "unknown");
    const passes = status === 429 || status === 503;
    super(code, `${code}: ${problem.detail ?? problem.title ?? status}`, passes);
    this.status = status;
    this.retryAfter = retryAfter;
    this.problem = problem;
  }
}

export interface ApiOptions {
  /** Of the server: `https://host`, or `https://host/path` where a proxy has it below a path. */
  url: string;
  /** An access token, or a function that is called when a new one is needed. */
  token?: Token;
  /** Milliseconds for one call. */
  timeout?: number;
  /** Long numbers of answers: see `connect`. */
  numbers?: Numbers;
  /** Another `fetch`. */
  fetch?: typeof fetch;
}

type Loose = Readonly<Record<string, unknown>>;
interface Parts {
  path?: Loose;
  query?: Loose;
  header?: Loose;
  body?: unknown;
}

const TIMEOUT = 10_000;

export class Api {
  readonly #options: ApiOptions;
  readonly #keeper: TokenKeeper | undefined;

  constructor(options: ApiOptions) {
    const { token, timeout = TIMEOUT } = options;
    this.#options = options;
    if (token !== undefined)
      this.#keeper = new TokenKeeper(token, (work) =>
        inTime(work, timeout, "no answer of token()"),
      );
  }

  /** @throws ApiError when it is refused, RequestFailed when there is no answer */
  async get<P extends PathOf<"get">>(path: P, ...rest: Rest<Given<P, "get">>) {
    return (await this.request("get", path, ...rest)).data;
  }

  async post<P extends PathOf<"post">>(path: P, ...rest: Rest<Given<P, "post">>) {
    return (await this.request("post", path, ...rest)).data;
  }

  async put<P extends PathOf<"put">>(path: P, ...rest: Rest<Given<P, "put">>) {
    return (await this.request("put", path, ...rest)).data;
  }

  async delete<P extends PathOf<"delete">>(path: P, ...rest: Rest<Given<P, "delete">>) {
    return (await this.request("delete", path, ...rest)).data;
  }

  /** A call with its status and headers, such as the ETag. */
  async request<M extends Method, P extends PathOf<M>>(
    method: M,
    path: P,
    ...[given]: Rest<Given<P, M>>
  ): Promise<Reply<Answer<P, M>>> {
    const parts = (given ?? {}) as Parts;
    const token = await this.#keeper?.current(Date.now());
    let answer = await this.#send(method, String(path), parts, token);
    if (answer.status === 401 && this.#keeper?.renewable) {
      await answer.body?.cancel();
      answer = await this.#send(method, String(path), parts, await this.#keeper.renewed());
    }
    const { status, headers } = answer;
    const data = (await this.#read(answer)) as Answer<P, M>;
    if (status >= 400) throw new ApiError(status, retryAfter(headers), problem(data));
    return { data, status, headers };
  }

  async #send(method: Method, path: string, parts: Parts, token: string | undefined) {
    const { url, timeout = TIMEOUT, fetch: send = fetch } = this.#options;
    const headers: Record<string, string> = {};
    for (const [name, value] of Object.entries(parts.header ?? {}))
      if (value !== undefined) headers[name] = String(value);
    if (token !== undefined) headers.Authorization = `Bearer ${token}`;
    if (parts.body !== undefined) headers["Content-Type"] = "application/json";
    const init: RequestInit = { method: method.toUpperCase(), headers };
    if (parts.body !== undefined) init.body = toText(parts.body);
    init.signal = AbortSignal.timeout(timeout);
    return send(url.replace(/\/+$/, "") + target(path, parts), init).catch(failed);
  }

  async #read(answer: Response): Promise<unknown> {
    const text = await answer.text().catch(failed);
    const json = /\bjson\b/.test(answer.headers.get("Content-Type") ?? "");
    if (!text) return undefined;
    return json ? fromText(text, this.#options.numbers) : text;
  }
}

/** The calls of a server. */
export function createApi(options: ApiOptions): Api {
  return new Api(options);
}

function target(path: string, { path: names = {}, query = {} }: Parts): string {
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => {
    const value = names[name];
    if (value === undefined || value === "") throw new TypeError(`${path} needs ${name}`);
    return encodeURIComponent(String(value));
  });
  const given = Object.entries(query).filter(([, value]) => value !== undefined);
  const search = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
  return given.length ? `${filled}?${search}` : filled;
}

/** No address in it: one may hold a secret. */
function failed(error: Error): never {
  const late = error.name === "TimeoutError";
  throw new RequestFailed(late ? "timeout" : "disconnected");
}

function retryAfter(headers: Headers): number {
  return asked(Number(headers.get("Retry-After") ?? 0) * 1000);
}

function problem(data: unknown): Loose {
  return typeof data === "object" && data !== null ? (data as Loose) : {};
}
