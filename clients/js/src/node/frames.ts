/** Frames of RFC 6455 as a client reads and writes them; no I/O. Extensions are not offered. */

export const OP = { CONTINUATION: 0, TEXT: 1, BINARY: 2, CLOSE: 8, PING: 9, PONG: 10 } as const;

export interface Frame {
  fin: boolean;
  opcode: number;
  data: Buffer;
}

/** The peer broke the protocol; `code` is what it is told. */
export class FrameError extends Error {
  constructor(
    readonly code: number,
    message: string,
  ) {
    super(message);
  }
}

/** A masked frame, as a client must send it. */
export function frame(opcode: number, data: Buffer, mask: Buffer): Buffer {
  const { length } = data;
  const extended = length < 126 ? 0 : length < 65_536 ? 2 : 8;
  const out = Buffer.alloc(2 + extended + 4 + length);
  out[0] = 0x80 | opcode;
  out[1] = 0x80 | (extended === 0 ? length : extended === 2 ? 126 : 127);
  if (extended === 2) out.writeUInt16BE(length, 2);
  if (extended === 8) out.writeBigUInt64BE(BigInt(length), 2);
  const start = 2 + extended + 4;
  mask.copy(out, start - 4, 0, 4);
  for (let i = 0; i < length; i++) out[start + i] = data[i]! ^ mask[i & 3]!;
  return out;
}

/** Bytes in, frames out. */
export class FrameReader {
  #parts: Buffer[] = [];
  #size = 0;

  constructor(private readonly maxMessage: number) {}

  /** @throws FrameError when the peer breaks the protocol */
  *read(chunk: Buffer): Generator<Frame> {
    this.#parts.push(chunk);
    this.#size += chunk.length;
    for (let found = this.#next(); found; found = this.#next()) yield found;
  }

  #next(): Frame | undefined {
    const head = this.#peek(Math.min(10, this.#size));
    if (head.length < 2) return undefined;
    const [first, second] = [head[0]!, head[1]!];
    if (first & 0x70) throw new FrameError(1002, "reserved bits");
    if (second & 0x80) throw new FrameError(1002, "masked frame of a server");
    const short = second & 0x7f;
    const start = short < 126 ? 2 : short === 126 ? 4 : 10;
    if (head.length < start) return undefined;
    const length =
      short < 126 ? short : short === 126 ? head.readUInt16BE(2) : Number(head.readBigUInt64BE(2));
    if (length > this.maxMessage) throw new FrameError(1009, "message too big");
    if (this.#size < start + length) return undefined;
    const data = this.#take(start + length).subarray(start);
    return { fin: (first & 0x80) !== 0, opcode: first & 0x0f, data };
  }

  #peek(count: number): Buffer {
    if ((this.#parts[0]?.length ?? 0) < count) this.#parts = [Buffer.concat(this.#parts)];
    return (this.#parts[0] ?? Buffer.alloc(0)).subarray(0, count);
  }

  #take(count: number): Buffer {
    const all = this.#parts.length === 1 ? this.#parts[0]! : Buffer.concat(this.#parts);
    this.#parts = all.length > count ? [all.subarray(count)] : [];
    this.#size -= count;
    return all.subarray(0, count);
  }
}
