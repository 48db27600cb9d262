// What is published: ES modules and CommonJS with their types.
import { defineConfig, type Options } from "tsup";

const common: Options = {
  entry: { index: "src/index.ts", node: "src/node.ts", offline: "src/offline/index.ts" },
  target: "es2022",
  minify: true,
  dts: true,
};

export default defineConfig([
  // What entries share is there once: in a file of its own.
  { ...common, format: "esm", splitting: true },
  { ...common, format: "cjs", splitting: false },
]);
