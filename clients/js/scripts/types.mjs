// The types that `tsc` has written: with endings in their imports, as Node wants them, for both kinds.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

const folder = new URL("../dist/types/", import.meta.url).pathname;
const RELATIVE = /((?:from|import\() ?["'])(\.[^"']+)(["'])/g;

function withEndings(text, file, ending) {
  const at = (path) => join(folder, dirname(file), path);
  return text.replace(RELATIVE, (_, before, path, after) => {
    const whole = existsSync(`${at(path)}.d.ts`) ? path : `${path}/index`;
    if (!existsSync(`${at(whole)}.d.ts`)) throw new Error(`${file}: ${path}`);
    return `${before}${whole}.${ending}${after}`;
  });
}

const files = readdirSync(folder, { recursive: true }).filter((name) => name.endsWith(".d.ts"));
for (const file of files) {
  const text = readFileSync(join(folder, file), "utf8");
  writeFileSync(join(folder, file.replace(/ts$/, "cts")), withEndings(text, file, "cjs"));
  writeFileSync(join(folder, file), withEndings(text, file, "js"));
}
