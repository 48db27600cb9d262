// What is published: packed, unpacked into a project, and used there as the pages say.
import { execFile } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";

const HOME = resolve(import.meta.dirname, "../..");
const ROOT = resolve(HOME, "../..");
const project = mkdtempSync(join(tmpdir(), "project-"));
const installed = join(project, "node_modules/@syncbridge/client");
const run = promisify(execFile);
let packed: string[];

beforeAll(async () => {
  const pack = ["pack", "--json", "--pack-destination", project];
  const { stdout } = await run("npm", pack, { cwd: HOME });
  const [{ filename, files }] = JSON.parse(stdout);
  packed = files.map(({ path }: { path: string }) => path);
  mkdirSync(installed, { recursive: true });
  await run("tar", ["-xzf", join(project, filename), "--strip-components=1", "-C", installed]);
  mkdirSync(join(project, "node_modules/@types"));
  for (const name of ["react", "@types/react", "@types/node"])
    symlinkSync(join(HOME, "node_modules", name), join(project, "node_modules", name));
});
afterAll(() => rmSync(project, { recursive: true, force: true }));

const write = (files: Record<string, string>) => {
  for (const [name, text] of Object.entries(files)) writeFileSync(join(project, name), text);
  return Object.keys(files);
};

/** What the compiler has against files of the project. */
async function compiled(files: string[], ...options: string[]): Promise<string> {
  const strict = "--noEmit --strict --target es2022 --types node".split(" ");
  const compiler = join(HOME, "node_modules/typescript/bin/tsc");
  const all = [compiler, ...strict, "--lib", "es2022,dom,dom.iterable", ...options, ...files];
  const done = await run(process.execPath, all, { cwd: project }).catch((error) => error);
  return done.stdout;
}

it("has what was built, its licence, and no dependency", () => {
  const others = packed.filter((path) => !path.startsWith("dist/"));
  expect(others.sort()).toEqual(["LICENSE", "README.md", "package.json"]);
  const read = (path: string) => readFileSync(path, "utf8");
  expect(read(join(installed, "LICENSE"))).toBe(read(join(ROOT, "LICENSE")));
  const { dependencies, exports } = JSON.parse(read(join(installed, "package.json")));
  expect(dependencies).toBe(undefined);
  const named = JSON.stringify(exports).match(/\.\/dist\/[^"]+/g)!;
  expect(named.length).toBeGreaterThan(20);
  expect(named.filter((path) => !existsSync(join(installed, path)))).toEqual([]);
});

const MODULE = `
import { connect, type Session, RawNumber, storedDeviceId } from "@syncbridge/client";
import { conflicts } from "@syncbridge/client/conflicts";
import { offline } from "@syncbridge/client/offline";
import { useCall, useSession, useValue } from "@syncbridge/client/react";
import { createApi } from "@syncbridge/client/server";
import { VoiceClient, livekit, realtimekit } from "@syncbridge/client/voice";
interface State { volume: number; mood?: string; items: string[] }
const session: Session<State> = await connect<State>({
  url: "https://x", token: async () => "t", deviceId: storedDeviceId(), numbers: RawNumber,
  store: offline({ user: "u" }), conflict: conflicts((key, mine, theirs) => mine ?? theirs),
});
const volume: number | undefined = session.get("volume");
session.set("volume", 3).acknowledged(5_000).then((version) => version.toFixed());
session.incr("volume");
session.append("items", "a");
session.on("lost", ({ count, resend }) => count && resend());
// @ts-expect-error a string is no volume
session.set("volume", "3");
// @ts-expect-error there is no such key
session.get("loudness");
// @ts-expect-error it is no number
session.incr("mood");
// @ts-expect-error there is no such event
session.on("nothing", () => {});
const { sessions } = await createApi({ url: "https://x" }).get("/sessions", {});
sessions[0]?.id.at(0);
export { livekit, realtimekit, useCall, useSession, useValue, VoiceClient, volume };
`;
const COMMON = `
import client = require("@syncbridge/client");
import { offline } from "@syncbridge/client/offline";
import react = require("@syncbridge/client/react");
const session: client.Session<{ n: number }> = client.createSession({
  url: "https://x", token: "t", deviceId: "d", store: offline({ user: "u" }),
});
export = { n: session.get("n")?.toFixed(), hook: react.useValue };
`;

it.each([
  ["nodenext", { "main.mts": MODULE, "main.cts": COMMON }],
  ["bundler", { "main.ts": MODULE }],
])("has types for %s, which no check of a library is skipped for", async (resolution, files) => {
  const module = resolution === "bundler" ? "esnext" : resolution;
  const how = ["--module", module, "--moduleResolution", resolution];
  expect(await compiled(write(files), ...how)).toBe("");
});

/** What the pages take for granted. */
const SURROUNDINGS = `
declare const url: string;
declare const token: string;
declare const slider: HTMLInputElement;
declare const muteButton: HTMLElement;
declare const session: import("@syncbridge/client").Session;
declare function show(what: unknown): void;
declare function serviceToken(): Promise<string>;
declare module "livekit-client";
declare module "@cloudflare/realtimekit";
declare module "centrifuge";
declare module "socket.io-client";
declare module "@liveblocks/client";
declare module "react-dom/client";
`;

it("has the types that every program of the documents takes for granted", async () => {
  const found = readdirSync(join(ROOT, "docs/"), { recursive: true, encoding: "utf8" });
  const guides = found.filter((name) => name.endsWith(".md")).map((name) => join("docs/", name));
  const files: Record<string, string> = { "surroundings.d.ts": SURROUNDINGS };
  for (const path of [...guides, "README.md", "clients/js/README.md"]) {
    const text = readFileSync(join(ROOT, path), "utf8");
    const name = path.replaceAll(/\W/g, "_");
    for (const [i, [, kind, block]] of [...text.matchAll(/```(js|jsx|ts)\n(.*?)```/gs)].entries())
      files[`${name}_${i}.${kind}`] = `${block}\nexport {};\n`;
  }
  expect(Object.keys(files)).toEqual(
    expect.arrayContaining(["docs_client_js_md_5.ts", "clients_js_README_md_0.js"]),
  );
  const how = "--module esnext --moduleResolution bundler --jsx react-jsx".split(" ");
  const loose = "--allowJs --checkJs --strictNullChecks false --noImplicitAny false".split(" ");
  const said = await compiled(write(files), ...how, ...loose, "--skipLibCheck");
  // Without types of their own, these programs know nothing of a value but that it is JSON.
  const assigned = /^\S+\.jsx?\S* error TS(2322|2345):.*\n( .*\n)*/gm;
  expect(said.replace(assigned, "")).toBe("");
});
