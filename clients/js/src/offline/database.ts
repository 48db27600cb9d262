/** IndexedDB as promises with deadlines: a database, and transactions over all of its stores. */
import { StorageError } from "../core/errors";

const VERSION = 1;
const DEADLINE = 5_000;
/** The first transaction waits for those of the page before, which may hang. */
const OPENING = 60_000;
/** After a deadline: what has arrived while the page hung itself is taken first. */
const GRACE = 100;
const STORES = ["meta", "ops", "snap"] as const;
export type Stores = Record<(typeof STORES)[number], IDBObjectStore>;

/** Where a browser blocks storage it may have none, or throw at the question. */
export function hasStorage(): boolean {
  try {
    return !!globalThis.indexedDB;
  } catch {
    return false;
  }
}

export class Database {
  #db: IDBDatabase | undefined;

  constructor(private readonly name: string) {}

  /**
   * Run one transaction; resolves when it is on disk.
   *
   * @throws StorageError
   */
  async run<T>(act: (stores: Stores) => T): Promise<T> {
    const deadline = this.#db ? DEADLINE : OPENING;
    try {
      return await this.#try(act, deadline);
    } catch (error) {
      // A browser may close a database at any time: once more on a new connection.
      if (!(error instanceof Error) || error.name !== "InvalidStateError") throw explained(error);
      this.close();
      return await this.#try(act, deadline).catch((again) => {
        throw explained(again);
      });
    }
  }

  close(): void {
    this.#db?.close();
    this.#db = undefined;
  }

  async #try<T>(act: (stores: Stores) => T, deadline: number): Promise<T> {
    this.#db ??= await this.#open();
    const tx = this.#db.transaction(STORES, "readwrite", { durability: "relaxed" });
    const [meta, ops, snap] = STORES.map((name) => tx.objectStore(name)) as IDBObjectStore[];
    const result = act({ meta: meta!, ops: ops!, snap: snap! });
    await inTime(deadline, (resolve, reject) => {
      tx.oncomplete = () => resolve();
      tx.onabort = () => reject(tx.error);
    });
    return result;
  }

  async #open(): Promise<IDBDatabase> {
    const request = indexedDB.open(this.name, VERSION);
    request.onupgradeneeded = () => {
      for (const name of STORES) request.result.createObjectStore(name);
    };
    await inTime(DEADLINE, (resolve, reject) => {
      request.onsuccess = () => resolve();
      request.onerror = () => reject(request.error);
    });
    const db = request.result;
    db.onversionchange = db.onclose = () => this.close();
    return db;
  }
}

function inTime(
  deadline: number,
  work: (resolve: () => void, reject: (error: unknown) => void) => void,
) {
  return new Promise<void>((resolve, reject) => {
    const late = () => reject(new StorageError("no answer of IndexedDB in time"));
    let timer = setTimeout(() => {
      timer = setTimeout(late, GRACE);
    }, deadline);
    const end = (settle: () => void) => {
      clearTimeout(timer);
      settle();
    };
    work(
      () => end(resolve),
      (error) => end(() => reject(error)),
    );
  });
}

function explained(error: unknown): StorageError {
  if (error instanceof StorageError) return error;
  const name = error instanceof Error ? error.name : "aborted";
  const full = name === "QuotaExceededError";
  return new StorageError(full ? "storage is full" : `storage failed: ${name}`, error);
}
