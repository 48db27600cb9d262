// What a page gets by an import, minified and gzipped, as an ES module.
const modifyEsbuildConfig = (config) => ({ ...config, format: "esm" });
const shared = "./chunk-*";

export default [
  {
    // Without why a handshake was refused, which is loaded when one is.
    name: "core",
    path: "dist/index.js",
    import: "{ connect }",
    ignore: ["./explain-*"],
    limit: "12.4 KB",
  },
  {
    name: "offline, without what it shares with the core",
    path: "dist/offline.js",
    import: "{ offline }",
    ignore: [shared],
    limit: "7 KB",
  },
  {
    name: "conflicts, without what it shares with the core",
    path: "dist/conflicts.js",
    import: "{ conflicts }",
    ignore: [shared],
    limit: "1 KB",
  },
  {
    name: "react",
    path: "dist/react.js",
    import: "*",
    ignore: ["react", "@syncbridge/client", shared],
    limit: "2 KB",
  },
  {
    name: "voice, without what it shares with the core",
    path: "dist/voice.js",
    import: "{ VoiceClient, livekit }",
    ignore: [shared],
    limit: "4 KB",
  },
].map((check) => ({ ...check, gzip: true, modifyEsbuildConfig }));
