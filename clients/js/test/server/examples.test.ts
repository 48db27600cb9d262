// The examples for Node, as a project that has the package installed runs them.
import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { connect } from "../../src/node";
import { mint, Site } from "../support/server";

const HOME = resolve(import.meta.dirname, "../..");
const project = mkdtempSync(join(tmpdir(), "example-"));
let site: Site;
beforeAll(async () => {
  site = await Site.start();
  mkdirSync(join(project, "node_modules/@syncbridge"), { recursive: true });
  symlinkSync(HOME, join(project, "node_modules/@syncbridge/client"));
});
afterAll(async () => {
  await site?.close();
  rmSync(project, { recursive: true, force: true });
});

it("runs the Node service", async () => {
  const user = randomUUID();
  const phone = await connect<{ call: { state: string } }>({
    url: site.url,
    token: mint(user),
    deviceId: "phone",
  });
  const shown: string[] = [];
  phone.subscribe("call", (call) => shown.push(call!.state));
  const file = join(project, "node_service.mjs");
  copyFileSync(join(HOME, "../../examples/node_service.mjs"), file);
  const env = {
    ...process.env,
    SYNCBRIDGE_URL: `http://127.0.0.1:${site.port}`,
    SERVICE_TOKEN: mint("gateway", { role: "service" }),
    USER_TOKEN: mint(user),
  };
  const { stdout } = await promisify(execFile)(process.execPath, [file], { env });
  expect(stdout.trim().split("\n")).toEqual([
    "the devices show: active",
    "the devices show: terminated",
    "the server has it with the topic support",
  ]);
  expect(shown).toEqual(["active", "terminated"]);
  await phone.close();
});
