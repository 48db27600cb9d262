/** A small WebSocket for Node 20, over `node:http`: as much of the browser's as the client uses. */
import { createHash, randomBytes } from "node:crypto";
import { type ClientRequest, request as httpRequest, type IncomingMessage } from "node:http";
import { request as httpsRequest } from "node:https";
import type { Duplex } from "node:stream";
import type { SocketLike } from "../core/env";
import { type Frame, FrameError, FrameReader, frame, OP } from "./frames";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const MAX_MESSAGE = 8_388_608;
/** For the peer's close frame and the end of the connection. */
const CLOSING = 2_000;
const ABNORMAL = 1006;
const NO_STATUS = 1005;

export class NodeSocket implements SocketLike {
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  readonly #request: ClientRequest;
  readonly #key = randomBytes(16).toString("base64");
  readonly #reader = new FrameReader(MAX_MESSAGE);
  readonly #decoder = new TextDecoder("utf-8", { fatal: true });
  #stream: Duplex | undefined;
  #parts: Buffer[] = [];
  #partsSize = 0;
  #status: [number, string] = [ABNORMAL, ""];
  #closing = false;
  #closed = false;

  constructor(url: string, protocol: string) {
    const target = new URL(url);
    const secure = target.protocol === "wss:";
    target.protocol = secure ? "https:" : "http:";
    this.#request = (secure ? httpsRequest : httpRequest)(target, {
      agent: false,
      headers: {
        Connection: "Upgrade",
        Upgrade: "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": this.#key,
        "Sec-WebSocket-Protocol": protocol,
      },
    });
    this.#request.on("upgrade", (answer, stream, head) => this.#upgraded(answer, stream, head));
    this.#request.on("response", () => this.#request.destroy());
    this.#request.on("error", () => this.#gone());
    this.#request.on("close", () => !this.#stream && this.#gone());
    this.#request.end();
  }

  get bufferedAmount(): number {
    return this.#stream?.writableLength ?? 0;
  }

  send(data: string): void {
    if (!this.#closing) this.#write(OP.TEXT, Buffer.from(data));
  }

  close(code = 1000, reason = ""): void {
    if (this.#closing) return;
    if (!this.#stream) {
      this.#closing = true;
      this.#request.destroy();
      return;
    }
    const body = Buffer.alloc(2 + Buffer.byteLength(reason));
    body.writeUInt16BE(code);
    body.write(reason, 2);
    this.#finish(body);
  }

  #upgraded(answer: IncomingMessage, stream: Duplex, head: Buffer): void {
    const accept = createHash("sha1")
      .update(this.#key + GUID)
      .digest("base64");
    if (answer.headers["sec-websocket-accept"] !== accept || this.#closing) {
      stream.destroy();
      return this.#gone();
    }
    this.#stream = stream;
    (stream as { setNoDelay?: (on: boolean) => void }).setNoDelay?.(true);
    stream.on("error", () => this.#gone());
    stream.on("close", () => this.#gone());
    stream.on("end", () => stream.end());
    this.onopen?.({} as never);
    if (head.length) this.#read(head);
    stream.on("data", (chunk: Buffer) => this.#read(chunk));
  }

  #read(chunk: Buffer): void {
    try {
      for (const one of this.#reader.read(chunk)) if (!this.#closed) this.#take(one);
    } catch (error) {
      const code = error instanceof FrameError ? error.code : 1007;
      this.#finish(Buffer.from([code >> 8, code & 0xff]));
      this.#stream?.destroy();
    }
  }

  #take({ fin, opcode, data }: Frame): void {
    if (opcode === OP.CLOSE) return this.#peerCloses(data);
    if (opcode === OP.PING) return this.#write(OP.PONG, data);
    if (opcode === OP.PONG) return;
    this.#parts.push(data);
    this.#partsSize += data.length;
    if (this.#partsSize > MAX_MESSAGE) throw new FrameError(1009, "message too big");
    if (!fin) return;
    const message = Buffer.concat(this.#parts);
    this.#parts = [];
    this.#partsSize = 0;
    this.onmessage?.({ data: this.#decoder.decode(message) } as never);
  }

  #peerCloses(data: Buffer): void {
    const code = data.length >= 2 ? data.readUInt16BE(0) : NO_STATUS;
    this.#status = [code, data.subarray(2).toString()];
    this.#finish(data.subarray(0, 2));
    this.#stream?.end();
  }

  /** Send a close frame, and do not wait for ever for its answer. */
  #finish(body: Buffer): void {
    if (this.#closing) return;
    this.#write(OP.CLOSE, body);
    this.#closing = true;
    setTimeout(() => this.#stream?.destroy(), CLOSING).unref();
  }

  #write(opcode: number, data: Buffer): void {
    if (this.#stream?.writable) this.#stream.write(frame(opcode, data, randomBytes(4)));
  }

  #gone(): void {
    if (this.#closed) return;
    this.#closed = this.#closing = true;
    const [code, reason] = this.#status;
    this.onclose?.({ code, reason } as never);
  }
}
