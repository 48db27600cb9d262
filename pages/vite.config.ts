/**
 * Builds the pages that the server serves: `index.html` (the demo) and `admin/index.html` (the dashboard).
 *
 * Addresses in the built pages are relative, so that they also work below a path prefix. Nothing is
 * inlined: the server's policy allows neither inline scripts nor other origins.
 */
import { join } from "node:path";
import { defineConfig } from "vite";

const here = import.meta.dirname;
const client = (path: string) => join(here, "../clients/js/src", path);

export default defineConfig({
  base: "./",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  resolve: {
    alias: [
      { find: /^@syncbridge\/client$/, replacement: client("index.ts") },
      {
        find: /^@syncbridge\/client\/(offline|voice|conflicts)$/,
        replacement: client("$1/index.ts"),
      },
    ],
  },
  build: {
    outDir: process.env.PAGES_OUT ?? "../build/pages",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    rollupOptions: {
      input: { demo: join(here, "index.html"), admin: join(here, "admin/index.html") },
    },
  },
});
