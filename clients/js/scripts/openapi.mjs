// The types of the REST calls, from `openapi.json`; with the address of a server, that one first.
import { readFile, writeFile } from "node:fs/promises";
import openapiTS, { astToString } from "openapi-typescript";
import { strip, write } from "./strip.mjs";

const source = new URL("../openapi.json", import.meta.url);
const address = process.argv[2];
if (address) {
  const answer = await fetch(new URL("/openapi.json", address));
  await writeFile(source, write(strip(await answer.json())));
}
const types = await openapiTS(await readFile(source, "utf8"), {
  immutable: true,
  emptyObjectsUnknown: true,
});
const head = "// Made by scripts/openapi.mjs.\n";
await writeFile(new URL("../src/server/schema.ts", import.meta.url), head + astToString(types));
