/** What every page is made of: messages, dialogs, tables, actions. */
import { type ComponentChildren, createContext } from "preact";
import { useContext, useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "../access";
import { age, Digits, date, preview } from "../format";
import type { Feed } from "../live";

/** Who is signed in and what is known, for every page. */
export const Context = createContext<{ feed: Feed; say: (text: string, bad?: boolean) => void }>(
  undefined as never,
);

/** The feed; whoever uses it is drawn anew with each of its changes. */
export function useFeed(): Feed {
  const { feed } = useContext(Context);
  const [, redraw] = useState(0);
  useEffect(() => feed.listen(() => redraw((n) => n + 1)), [feed]);
  return feed;
}

export function useSay(): (text: string, bad?: boolean) => void {
  return useContext(Context).say;
}

export function useAdmin(): boolean {
  return useContext(Context).feed.me.role === "admin";
}

export function reason(error: unknown): string {
  if (error instanceof ApiError) return error.message;
  return error instanceof Error ? error.message : String(error);
}

export function isGone(error: unknown): boolean {
  return error instanceof ApiError && error.status === 404;
}

/**
 * What is loaded when a page is shown, and again on demand. What cannot be asked for now stays as it
 * was; what is not there any more does not.
 */
export function useLoaded<T>(load: () => Promise<T>, deps: unknown[]): Loaded<T> {
  const [state, setState] = useState<{ value?: T; error?: string; busy: boolean }>({ busy: true });
  const turn = useRef(0);
  const reload = async () => {
    const mine = ++turn.current;
    setState((known) => ({ ...known, busy: true }));
    try {
      const value = await load();
      if (mine === turn.current) setState({ value, busy: false });
    } catch (error) {
      if (mine === turn.current)
        setState(({ value }) => ({
          ...(!isGone(error) && { value }),
          error: reason(error),
          busy: false,
        }));
    }
  };
  useEffect(() => {
    setState({ busy: true });
    void reload();
    return () => {
      turn.current += 1;
    };
  }, deps);
  return { ...state, reload, set: (value) => setState({ value, busy: false }) };
}

export interface Loaded<T> {
  value?: T;
  error?: string;
  busy: boolean;
  reload: () => Promise<void>;
  set: (value: T) => void;
}

export function Page({
  title,
  children,
  aside,
}: {
  title: string;
  children: ComponentChildren;
  aside?: ComponentChildren;
}) {
  useEffect(() => {
    document.title = `${title} · SyncBridge`;
  }, [title]);
  return (
    <>
      <header class="head">
        <h1>{title}</h1>
        <div class="row">{aside}</div>
      </header>
      {children}
    </>
  );
}

export function Card({
  title,
  children,
  aside,
  wide,
}: {
  title: string;
  children: ComponentChildren;
  aside?: ComponentChildren;
  wide?: boolean;
}) {
  return (
    <section class={`card ${wide ? "wide" : ""}`} aria-label={title}>
      <div class="card-head">
        <h2>{title}</h2>
        <div class="row">{aside}</div>
      </div>
      {children}
    </section>
  );
}

export function Failure({ text }: { text?: string | undefined }) {
  return text ? (
    <p class="failure" role="alert">
      {text}
    </p>
  ) : null;
}

export function Badge({
  kind = "",
  children,
}: {
  kind?: "good" | "warn" | "bad" | "";
  children: ComponentChildren;
}) {
  return <span class={`badge ${kind}`}>{children}</span>;
}

/** A moment: how long ago by now, and when, for who points at it. */
export function When({ at }: { at: string | number | null }) {
  useFeed();
  if (at === null || at === "") return <span class="muted">never</span>;
  return (
    <time dateTime={new Date(at).toISOString()} title={date(at)}>
      {age(at)}
    </time>
  );
}

export function Id({ children, href }: { children: string; href?: string }) {
  return href ? (
    <a class="mono id" href={href}>
      {children}
    </a>
  ) : (
    <span class="mono id">{children}</span>
  );
}

interface Column<T> {
  head: string;
  cell: (row: T) => ComponentChildren;
  number?: boolean;
}

const SHOWN = 100;

/**
 * A table; on small screens each row becomes a list of its own. Of many rows `SHOWN` at a time are
 * there, unless it is `whole`: where they come in pages.
 */
export function Table<T>({
  caption,
  rows,
  columns,
  empty,
  by,
  whole,
}: {
  caption: string;
  rows: readonly T[];
  columns: readonly Column<T>[];
  empty: string;
  by: (row: T) => string;
  whole?: boolean;
}) {
  const [most, setMost] = useState(SHOWN);
  if (!rows.length) return <p class="empty">{empty}</p>;
  const shown = whole ? rows : rows.slice(0, most);
  const rest = rows.length - shown.length;
  return (
    <>
      <section class="table" tabIndex={0} aria-label={`${caption}, table`}>
        <table>
          <caption class="hidden">{caption}</caption>
          <thead>
            <tr>
              {columns.map(({ head, number }) => (
                <th key={head} scope="col" class={number ? "number" : ""}>
                  {head || <span class="hidden">Actions</span>}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {shown.map((row) => (
              <tr key={by(row)}>
                {columns.map(({ head, cell, number }) => (
                  <td key={head} data-head={head} class={number ? "number" : ""}>
                    {cell(row)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </section>
      {rest > 0 && (
        <div class="row foot">
          <button type="button" class="button" onClick={() => setMost(most + SHOWN)}>
            Show {Math.min(SHOWN, rest)} more of {rows.length}
          </button>
        </div>
      )}
    </>
  );
}

/**
 * The foot of a list that comes in pages.
 *
 * @param cursors where the pages begin that were passed, the one that is shown last
 * @param next where the next one begins; empty or undefined for none
 */
export function Pager({
  cursors,
  next,
  go,
  children,
}: {
  cursors: readonly string[];
  next: string | undefined;
  go: (cursors: string[]) => void;
  children?: ComponentChildren;
}) {
  return (
    <div class="row foot">
      {children}
      {cursors.length > 1 && (
        <button type="button" class="button" onClick={() => go(cursors.slice(0, -1))}>
          Previous page
        </button>
      )}
      {next && (
        <button type="button" class="button" onClick={() => go([...cursors, next])}>
          Next page
        </button>
      )}
    </div>
  );
}

/** A dialog over the page; Escape closes it. The focus goes back to where it came from. */
export function Dialog({
  title,
  onClose,
  children,
}: {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const from = document.activeElement as HTMLElement | null;
    dialog.current?.showModal();
    return () => from?.focus();
  }, []);
  return (
    <dialog ref={dialog} aria-label={title} onClose={onClose}>
      <div class="dialog">
        <h2>{title}</h2>
        {children}
      </div>
    </dialog>
  );
}

interface Doing {
  label: string;
  title: string;
  text: ComponentChildren;
  confirm: string;
  act: () => Promise<string>;
  danger?: boolean;
}

/** A button for who may act; it asks first, does it, and says what became of it. */
export function Act({ label, title, text, confirm, act, danger }: Doing) {
  const [asking, setAsking] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  const open = useRef(false);
  const say = useSay();
  if (!useAdmin()) return null;
  const ask = (now: boolean) => {
    open.current = now;
    setAsking(now);
    setError("");
  };
  const go = async () => {
    setBusy(true);
    setError("");
    try {
      say(await act());
      ask(false);
    } catch (failed) {
      if (open.current) setError(reason(failed));
      else say(reason(failed), true);
    } finally {
      setBusy(false);
    }
  };
  return (
    <>
      <button type="button" class={`button ${danger ? "danger" : ""}`} onClick={() => ask(true)}>
        {label}
      </button>
      {asking && (
        <Dialog title={title} onClose={() => ask(false)}>
          <div>{text}</div>
          <Failure text={error} />
          <div class="row end">
            <button type="button" class="button" onClick={() => ask(false)}>
              Cancel
            </button>
            <button
              type="button"
              class={`button ${danger ? "danger" : "primary"}`}
              disabled={busy}
              onClick={() => void go()}
            >
              {confirm}
            </button>
          </div>
        </Dialog>
      )}
    </>
  );
}

export function Facts({ facts }: { facts: readonly (readonly [string, ComponentChildren])[] }) {
  return (
    <dl class="facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** Something that is shown once, to be copied. On pages without TLS there is no clipboard. */
export function Once({ label, text }: { label: string; text: string }) {
  const [said, setSaid] = useState("");
  const box = useRef<HTMLTextAreaElement>(null);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setSaid("Copied.");
    } catch {
      box.current?.select();
      setSaid(document.execCommand("copy") ? "Copied." : "The text is selected: copy it by hand.");
    }
  };
  return (
    <div class="once">
      <label>
        {label}
        <textarea
          ref={box}
          readOnly
          rows={4}
          class="mono"
          value={text}
          onFocus={({ currentTarget }) => currentTarget.select()}
        />
      </label>
      <div class="row">
        <button type="button" class="button" onClick={() => void copy()}>
          Copy
        </button>
        <span class="small" role="status">
          {said}
        </span>
      </div>
    </div>
  );
}

/** Members of a value, and letters of a text, that are shown: a download has all. */
const MEMBERS = 200;
const LONGEST = 1_000;

/** A value as a tree that can be opened; what is closed is not there. */
export function Json({ value, depth = 0 }: { value: unknown; depth?: number }) {
  const small = value !== null && typeof value === "object" && Object.keys(value).length < 8;
  const [open, setOpen] = useState(depth === 0 && small);
  if (value instanceof Digits) return <span class="mono json-number">{value.text}</span>;
  if (value === null || typeof value !== "object") {
    return (
      <span class={`mono json-${value === null ? "null" : typeof value}`}>
        {preview(JSON.stringify(value), LONGEST)}
      </span>
    );
  }
  const entries = Object.entries(value);
  const brackets = Array.isArray(value) ? ["[", "]"] : ["{", "}"];
  if (!entries.length) return <span class="mono">{brackets.join("")}</span>;
  return (
    <details open={open} onToggle={({ currentTarget }) => setOpen(currentTarget.open)}>
      <summary class="mono">
        {brackets[0]} {entries.length} {brackets[1]}
      </summary>
      {open && (
        <ul class="tree">
          {entries.slice(0, MEMBERS).map(([name, member]) => (
            <li key={name}>
              <span class="mono muted">{name}: </span>
              <Json value={member} depth={depth + 1} />
            </li>
          ))}
          {entries.length > MEMBERS && <li class="muted">and {entries.length - MEMBERS} more</li>}
        </ul>
      )}
    </details>
  );
}

/** Save a text as a file. */
export function download(name: string, text: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1_000);
}
