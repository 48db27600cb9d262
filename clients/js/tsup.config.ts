// What is published: ES modules and CommonJS with their types, one file an entry.
import { defineConfig } from "tsup";

export default defineConfig({
  entry: { index: "src/index.ts", node: "src/node.ts" },
  format: ["esm", "cjs"],
  target: "es2022",
  dts: true,
  clean: true,
  splitting: false,
  minify: true,
  treeshake: true,
  external: ["@syncbridge/client", "react"],
});
