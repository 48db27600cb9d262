/**
 * Who is signed in, and requests in their name.
 *
 * Tokens live in memory, and over a reload in the tab's own storage.
 */
import { keptOverReload } from "../shared/kept";
import { noteServerTime, now } from "./clock";
import type { Me } from "./types";

const KEPT = "syncbridge.dashboard";
const EARLY = 60_000;
/** What cannot be in a header, so that nothing would be sent. */
const NOT_IN_TOKENS = /[^!-~]/;

interface Tokens {
  access: string;
  /** Empty for a token that was pasted: it ends when it ends. */
  refresh: string;
}

interface Pair {
  access_token: string;
  refresh_token: string;
}

/** What the server refused, by its problem document; status 0: it did not answer. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    /** The other members of the document. */
    readonly body: Record<string, unknown> = {},
  ) {
    super(detail);
  }
}

/** A body that is JSON text already. */
export class RawBody {
  constructor(readonly text: string) {}
}

/** Path of the server, without `/admin/`. */
export const root = location.pathname.replace(/\/admin\/.*$/, "");

let tokens: Tokens | undefined;
let endsAt = 0;
let renewing: Promise<void> | undefined;
let ended: (reason: string) => void = () => {};

/** `listener` is called when the server does not take the tokens any more. */
export function onEnd(listener: (reason: string) => void): void {
  ended = listener;
}

const kept = keptOverReload(KEPT, () => tokens && JSON.stringify(tokens));

/** The tokens that the page had before it was loaded anew. */
export function restore(): boolean {
  if (kept) tokens = JSON.parse(kept);
  return tokens !== undefined;
}

/** The code of a link, taken out of the address before anything else is done. */
export function codeInAddress(): string {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (code !== null) history.replaceState(null, "", `${location.pathname}#/`);
  return code ?? "";
}

export async function signInByCode(code: string): Promise<void> {
  keep(await send<Pair>("POST", "/admin/sign-in", { code }, ""));
}

/** `pasted`: a token, or the header that it was in. */
export function signInByToken(pasted: string): void {
  tokens = { access: pasted.trim().replace(/^Bearer\s+/i, ""), refresh: "" };
}

export function signOut(): void {
  tokens = undefined;
}

/** Who is signed in. @throws ApiError */
export async function whoAmI(): Promise<Me> {
  const me = await ask<Me>("GET", "/admin/me");
  endsAt = Date.parse(me.expires_at);
  return me;
}

/** Until when the token is good that is used now, Unix ms. It is renewed before, if it can be. */
export function tokenEnds(): number {
  return endsAt;
}

/** A token that is good for some time yet. @throws ApiError */
export async function currentToken(): Promise<string> {
  if (tokens?.refresh && endsAt && now() > endsAt - EARLY) {
    await renewed().catch((error) => {
      if (isUnauthorized(error)) end(error);
      throw error;
    });
  }
  return tokens?.access ?? "";
}

/** Whoever asks meanwhile waits for the same renewal: a refresh token is good once. */
function renewed(): Promise<void> {
  renewing ??= renew().finally(() => {
    renewing = undefined;
  });
  return renewing;
}

async function renew(): Promise<void> {
  const before = tokens;
  const pair = await send<Pair>("POST", "/auth/refresh", { refresh_token: before?.refresh }, "");
  if (tokens !== before) return;
  keep(pair);
  const me = await send<Me>("GET", "/admin/me", undefined, pair.access_token);
  endsAt = Date.parse(me.expires_at);
}

function isUnauthorized(error: unknown): error is ApiError {
  return error instanceof ApiError && error.status === 401;
}

function keep(pair: Pair): void {
  tokens = { access: pair.access_token, refresh: pair.refresh_token };
  endsAt = 0;
}

function end(error: ApiError): void {
  signOut();
  ended(error.message);
}

/** A request in the name of who is signed in. @throws ApiError */
export async function ask<T>(method: string, path: string, body?: unknown): Promise<T> {
  const token = await currentToken();
  try {
    return await send<T>(method, path, body, token);
  } catch (error) {
    if (!isUnauthorized(error) || !tokens) throw error;
    try {
      if (tokens.access === token) await renewable(error);
      return await send<T>(method, path, body, tokens.access);
    } catch (again) {
      if (isUnauthorized(again) && tokens) end(error);
      throw again;
    }
  }
}

/** Renew a token that the server does not take; one that cannot be renewed is the error. */
async function renewable(error: ApiError): Promise<void> {
  if (!tokens?.refresh) throw error;
  await renewed();
}

async function send<T>(method: string, path: string, body: unknown, token: string): Promise<T> {
  if (NOT_IN_TOKENS.test(token))
    throw new ApiError(
      401,
      "token_invalid",
      "This is no token: it has a space or a letter too much.",
    );
  const headers: Record<string, string> = {};
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer: Response;
  let text: string;
  try {
    answer = await fetch(root + path, {
      method,
      headers,
      body: written(body),
      signal: AbortSignal.timeout(15_000),
    });
    text = await answer.text();
  } catch {
    throw new ApiError(0, "no_answer", "The server does not answer.");
  }
  noteServerTime(answer.headers.get("date"));
  if (answer.ok)
    return (answer.headers.get("content-type")?.includes("json") ? JSON.parse(text) : text) as T;
  throw refusal(answer.status, text);
}

/** What was refused; a proxy in between may have answered something else than a problem document. */
function refusal(status: number, text: string): ApiError {
  let body: Record<string, unknown> = {};
  try {
    body = Object(JSON.parse(text));
  } catch {
    // A page.
  }
  const { code, detail } = body;
  const said = typeof detail === "string" && detail ? detail : `The server answered ${status}.`;
  return new ApiError(status, typeof code === "string" ? code : "", said, body);
}

function written(body: unknown): string | null {
  if (body instanceof RawBody) return body.text;
  return body === undefined ? null : JSON.stringify(body);
}

/** A path with its parts escaped: `path\`/admin/sessions/${id}\``. */
export function path(parts: TemplateStringsArray, ...values: (string | number)[]): string {
  return String.raw({ raw: parts }, ...values.map((value) => encodeURIComponent(value)));
}

/** A query string of what is not empty. */
export function query(values: Record<string, string | number | boolean>): string {
  const given = Object.entries(values).filter(([, value]) => value !== "" && value !== false);
  return given.length ? `?${new URLSearchParams(given.map(([k, v]) => [k, String(v)]))}` : "";
}
