// The REST calls against a real server, and their types against its own description.
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { strip, write } from "../../scripts/strip.mjs";
import { type Answer, ApiError, createApi, RequestFailed } from "../../src/server";
import { mint, Site } from "../support/server";

let site: Site;
let url: string;
beforeAll(async () => {
  site = await Site.start();
  url = `http://127.0.0.1:${site.port}`;
});
afterAll(() => site.close());

it("is typed by what the server says of itself: else `npm run openapi URL`", async () => {
  const document = await (await fetch(`${url}/openapi.json`)).json();
  const kept = await readFile(new URL("../../openapi.json", import.meta.url), "utf8");
  expect(write(strip(document))).toBe(kept);
});

it("keeps the call sessions of a gateway", async () => {
  const id = randomUUID();
  const tokens = [mint("gateway", { role: "service" }, -600), mint("gateway", { role: "service" })];
  const api = createApi({ url, token: () => tokens.shift()! });
  const made = await api.request("post", "/sessions", {
    body: { id, type: "WebRTC", details: { from: "a/b" } },
  });
  expect([made.status, tokens.length]).toEqual([201, 0]);
  await api.put("/sessions/{id}/state", { path: { id }, body: { state: "active" } });
  const call: Answer<"/sessions/{id}", "get"> = await api.get("/sessions/{id}", { path: { id } });
  expect([call.state, call.details]).toEqual(["active", { from: "a/b" }]);
  const page = await api.get("/sessions", { query: { state: "active", limit: 1 } });
  expect(page.sessions.map((s) => s.id)).toEqual([id]);
  expect(await api.delete("/sessions/{id}", { path: { id } })).toBe(undefined);
  const gone = await api.get("/sessions/{id}", { path: { id } }).catch((error) => error);
  expect(gone).toBeInstanceOf(ApiError);
  expect([gone.status, gone.code, gone.retryable]).toEqual([404, "call_not_found", false]);
});

it.each(["https://host/sync", "https://host/sync/"])(
  "calls a server that is at %s",
  async (url) => {
    const called: string[] = [];
    const answer = async (address: unknown) => {
      called.push(String(address));
      return Response.json({});
    };
    await createApi({ url, fetch: answer }).get("/sessions", { query: { state: "active" } });
    expect(called).toEqual(["https://host/sync/sessions?state=active"]);
  },
);

it("says that there is no server, and no more", async () => {
  const api = createApi({ url: "http://127.0.0.1:9", token: "secret" });
  const error = await api.get("/health").catch((e) => e);
  expect(error).toBeInstanceOf(RequestFailed);
  expect([error.code, error.retryable, error.message]).toEqual([
    "disconnected",
    true,
    "disconnected",
  ]);
});

it("does not compile what no server takes", () => {
  const wrong = (api: ReturnType<typeof createApi>) => [
    // @ts-expect-error there is no such path
    api.get("/nothing"),
    // @ts-expect-error the path has a parameter
    api.get("/sessions/{id}"),
    // @ts-expect-error no such state
    api.put("/sessions/{id}/state", { path: { id: "a" }, body: { state: "gone" } }),
  ];
  expect(wrong).toBeTypeOf("function");
});
