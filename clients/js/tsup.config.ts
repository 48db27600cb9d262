// What is published: ES modules and CommonJS. Their types: `tsconfig.types.json`.
import { defineConfig, type Options } from "tsup";
import { shortNames } from "./names";

const entry = {
  index: "src/index.ts",
  conflicts: "src/conflicts/index.ts",
  node: "src/node.ts",
  offline: "src/offline/index.ts",
  react: "src/react/index.ts",
  server: "src/server/index.ts",
  voice: "src/voice/index.ts",
};

const common: Options = {
  entry,
  target: "es2022",
  external: ["@syncbridge/client", "react"],
  minify: true,
  esbuildOptions(options) {
    options.mangleProps = new RegExp(`^(${Object.keys(shortNames).join("|")})$`);
    // The same in both formats, so that a store of one can be given to a session of the other.
    options.mangleCache = shortNames;
  },
};

export default defineConfig([
  // What entries share is there once: in a file of its own.
  { ...common, format: "esm", splitting: true },
  { ...common, format: "cjs", splitting: false },
]);
