// The scenarios that every client passes: `syncbridge client-check` on what was built.
import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { expect, it } from "vitest";

const ROOT = resolve(import.meta.dirname, "../../../..");
const PYTHON = process.env.SYNCBRIDGE_PYTHON ?? join(ROOT, ".venv/bin/python");
const SCENARIOS = join(ROOT, "clients/scenarios");

it("passes every scenario", { timeout: 600_000 }, async () => {
  const check = ["-m", "syncbridge_server", "client-check", SCENARIOS];
  const driver = [process.execPath, join(SCENARIOS, "driver.mjs")];
  const { stdout } = await promisify(execFile)(PYTHON, [...check, ...driver], { cwd: ROOT });
  const files = readdirSync(SCENARIOS).filter((name) => name.endsWith(".json"));
  expect(stdout.match(/^passed /gm)?.length).toBe(files.length);
});
