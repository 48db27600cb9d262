/**
 * Why a handshake was refused: browsers do not say, but `GET /ws` does. A file of its own, which is
 * loaded when that has happened.
 */
import type { Explanation } from "./env";
import { asked } from "./pacing";

const EXPLAIN_TIMEOUT = 5_000;

/** Ask; nothing when there is no answer. */
export async function explain(url: string): Promise<Explanation | undefined> {
  const address = url.replace(/^ws/, "http");
  const init = { signal: AbortSignal.timeout(EXPLAIN_TIMEOUT), cache: "no-store" } as const;
  try {
    return await explained(await fetch(address, init));
  } catch {
    // A page of an origin that is not allowed cannot read the answer, but can tell that there is one.
    const reached = await fetch(address, { ...init, mode: "no-cors" }).catch(() => undefined);
    if (reached?.type !== "opaque") return undefined;
    return { status: 0, code: "origin_refused", detail: HINT, retryAfter: 0 };
  }
}

const HINT = "the server is there, but does not let pages of this origin read its answers";

async function explained(answer: Response): Promise<Explanation | undefined> {
  const problem = await answer.json().catch(() => undefined);
  if (typeof problem?.code !== "string") return undefined;
  return {
    status: answer.status,
    code: problem.code,
    detail: String(problem.detail ?? problem.title ?? ""),
    retryAfter: asked(Number(answer.headers.get("Retry-After") ?? 0) * 1000),
  };
}
