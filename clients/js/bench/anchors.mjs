// Side by side with other clients: size, memory of 1,000 keys, reconnecting after a server was killed.
//
//     make client-js && cd clients/js/bench && npm install && node anchors.mjs [KILLS]
//
// centrifuge is left out without a `centrifugo` on PATH, or in CENTRIFUGO. Needs the .venv of `make run`.
import { execFileSync } from "node:child_process";
import { reconnects } from "./reconnect.mjs";
import { sizes } from "./sizes.mjs";

// 0: nothing is killed, and only size and memory are looked at.
const rounds = Number(process.argv[2] ?? 20);
const run = (command, ...args) => execFileSync(command, args, { encoding: "utf8" }).trim();
const commit = run("git", "rev-parse", "--short", "HEAD");
console.log(`${commit}, ${new Date().toISOString().slice(0, 10)}, Node ${process.version}\n`);

for (const [name, size] of Object.entries(await sizes()))
  console.log(`${name}: ${size.toFixed(1)} KB`);
console.log();
for (const name of ["@syncbridge/client", "yjs", "a plain object"]) {
  const measure = () => run(process.execPath, "--expose-gc", "memory.mjs", name).split(" ")[0];
  const kib = Array.from({ length: 9 }, measure).sort((a, b) => a - b);
  console.log(`${name}: ${kib[4]} KiB for 1,000 keys (${kib[0]} to ${kib[8]})`);
}
console.log();
const OUTAGES = [500, 2_000, 10_000];
const clients = [
  ...["@syncbridge/client", "socket.io-client", "centrifuge"],
  ...["y-websocket", "partysocket"],
];
// Together, so that the machine is the same for all; they mostly wait.
const found = await Promise.allSettled(
  (rounds ? clients : []).map((name, i) => reconnects(name, rounds, OUTAGES, 28_100 + i)),
);
for (const [i, { value, reason }] of found.entries()) {
  if (!value) console.log(`${clients[i]}: left out, ${reason.message}`);
  for (const [outage, times] of value ?? []) {
    const sorted = times.sort((a, b) => a - b).map(Math.round);
    const share = (part) => sorted[Math.ceil(part * sorted.length) - 1];
    console.log(
      `${clients[i]}: ${outage / 1000} s of outage: back after ${share(0.5)} ms, 90 % within ` +
        `${share(0.9)} ms, all within ${share(1)} ms (${rounds} kills)`,
    );
  }
}
process.exit(0);
