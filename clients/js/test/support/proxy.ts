/** A TCP proxy between a client and a server, which breaks what passes through it. */
import { connect, createServer, type Server, type Socket } from "node:net";

/** `deaf`: the client hears nothing any more. */
type Fault = "none" | "hang" | "refuse" | "blackhole" | "deaf";

export class FaultyProxy {
  port = 0;
  fault: Fault = "none";
  /** Milliseconds each way. */
  delay = 0;
  accepted = 0;
  /** After so many chunks of the client the connection is reset; -1 for never. */
  resetAfter = -1;
  readonly #pairs = new Set<[Socket, Socket]>();
  readonly #hanging = new Set<Socket>();
  readonly #server: Server;

  private constructor(private readonly target: number) {
    this.#server = createServer((client) => this.#accept(client));
  }

  static async start(target: number): Promise<FaultyProxy> {
    const proxy = new FaultyProxy(target);
    proxy.#server.listen(0, "127.0.0.1");
    await new Promise((done) => proxy.#server.once("listening", done));
    proxy.port = (proxy.#server.address() as { port: number }).port;
    return proxy;
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}/ws`;
  }

  /** Break every connection that is open. */
  cut(): void {
    for (const pair of this.#pairs) for (const end of pair) end.resetAndDestroy();
    for (const client of this.#hanging) client.destroy();
    this.#hanging.clear();
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((done) => this.#server.close(done));
  }

  #accept(client: Socket): void {
    this.accepted += 1;
    client.on("error", () => {});
    if (this.fault === "refuse") return client.resetAndDestroy() as never;
    if (this.fault === "hang") return void this.#hanging.add(client);
    const server = connect(this.target, "127.0.0.1");
    const pair: [Socket, Socket] = [client, server];
    this.#pairs.add(pair);
    server.on("error", () => {});
    let left = this.resetAfter;
    this.#pass(client, server, pair, () => left-- === 0 && this.#reset(pair));
    this.#pass(server, client, pair, () => this.fault === "deaf");
  }

  #pass(from: Socket, to: Socket, pair: [Socket, Socket], reset: () => unknown): void {
    from.on("data", (chunk) => {
      if (this.fault === "blackhole" || reset()) return;
      if (this.delay) setTimeout(() => to.writable && to.write(chunk), this.delay);
      else to.write(chunk);
    });
    from.on("close", () => {
      this.#pairs.delete(pair);
      to.destroy();
    });
  }

  #reset(pair: [Socket, Socket]): boolean {
    for (const end of pair) end.resetAndDestroy();
    return true;
  }
}
