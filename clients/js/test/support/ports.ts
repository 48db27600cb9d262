/** Ports for servers that bind them later. */
import { once } from "node:events";
import { createServer } from "node:net";

/** Below the ports that the system gives to connections, and above those of the tests in Python. */
const [FIRST, MANY] = [27_000, 5_000];
let next = Math.floor(Math.random() * MANY);

/** A port that was free a moment ago, and that is given out once only. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < MANY; tries++) {
    const port = FIRST + (next++ % MANY);
    if (await isFree(port)) return port;
  }
  throw new Error("no free port");
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer().listen(port, "127.0.0.1");
  try {
    await once(server, "listening");
  } catch {
    return false;
  }
  server.close();
  await once(server, "close");
  return true;
}
