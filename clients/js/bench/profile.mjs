// What the core is made of: its bytes by module, minified, and their share of the gzipped size.
//
//     make client-js && node clients/js/bench/profile.mjs
import { basename, join } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const home = join(import.meta.dirname, "..");
const common = { bundle: true, format: "esm", write: false, target: "es2022", logLevel: "error" };
const names = await build({ ...common, entryPoints: [join(home, "names.ts")] });
const { shortNames } = await import(
  `data:text/javascript,${encodeURIComponent(names.outputFiles[0].text)}`
);

const { outputFiles, metafile } = await build({
  ...common,
  stdin: { contents: `export { connect } from "./src/index.ts";`, resolveDir: home },
  ...{ minify: true, metafile: true, outdir: "out", external: ["./explain"] },
  ...{
    mangleProps: new RegExp(`^(${Object.keys(shortNames).join("|")})$`),
    mangleCache: shortNames,
  },
});
const { text } = outputFiles[0];
const whole = gzipSync(text, { level: 9 }).length;
console.log(`${text.length} bytes, ${whole} gzipped`);
const [{ inputs }] = Object.values(metafile.outputs);
for (const [file, { bytesInOutput: bytes }] of Object.entries(inputs).sort(
  ([, a], [, b]) => b.bytesInOutput - a.bytesInOutput,
))
  if (bytes)
    console.log(`${basename(file)}: ${bytes} bytes, ${Math.round((bytes * whole) / text.length)}`);
