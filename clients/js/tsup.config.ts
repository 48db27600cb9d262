// What is published: ES modules and CommonJS with their types, what entries share in files of its own.
import { defineConfig } from "tsup";

export default defineConfig({
  entry: { index: "src/index.ts", node: "src/node.ts", offline: "src/offline/index.ts" },
  format: ["esm", "cjs"],
  target: "es2022",
  dts: true,
  clean: true,
  // What entries share is there once: a class of one is the class of the other.
  splitting: true,
  minify: true,
  external: ["@syncbridge/client", "react"],
});
