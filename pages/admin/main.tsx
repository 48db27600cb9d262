/** The dashboard of an installation: sign-in, and the pages behind it. */
import { type ComponentChildren, render } from "preact";
import { useEffect, useErrorBoundary, useRef, useState } from "preact/hooks";
import {
  ApiError,
  codeInAddress,
  onEnd,
  restore,
  signInByCode,
  signInByToken,
  signOut,
  whoAmI,
} from "./access";
import { Feed } from "./live";
import { Context, Failure, Page, reason } from "./ui/parts";
import { Access } from "./views/access";
import { Broadcast } from "./views/broadcast";
import { Call } from "./views/call";
import { Calls } from "./views/calls";
import { EndpointPage, Endpoints } from "./views/endpoints";
import { Overview } from "./views/overview";
import { Session } from "./views/session";
import { Sessions } from "./views/sessions";
import { System } from "./views/system";
import { Webhooks } from "./views/webhooks";
import "../shared/theme.css";
import "./admin.css";

const PAGES = [
  ["", "Overview"],
  ["sessions", "Sessions"],
  ["calls", "Calls"],
  ["webhooks", "Webhooks"],
  ["endpoints", "Webhooks out"],
  ["access", "Access"],
  ["broadcast", "Broadcast"],
  ["system", "System"],
] as const;
const SAID = 6_000;

/** A part of an address; one that somebody has mistyped is taken as it stands. */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Where in the dashboard: the parts of the path, and the query behind it. */
interface Place {
  parts: string[];
  sought: string;
}

function placeInAddress(): Place {
  const [path = "", ...rest] = location.hash.replace(/^#\/?/, "").split("?");
  return { parts: path.split("/").map(decoded), sought: rest.join("?") };
}

function usePlace(): Place {
  const [place, setPlace] = useState(placeInAddress);
  useEffect(() => {
    const changed = () => setPlace(placeInAddress());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return place;
}

function Shown({ place }: { place: Place }) {
  const [page = "", id = "", within = ""] = place.parts;
  if (page === "sessions")
    return id ? <Session key={id} id={id} /> : <Sessions sought={place.sought} />;
  if (page === "calls")
    return id ? <Call key={`${within}/${id}`} id={id} waddle={within} /> : <Calls />;
  if (page === "users") return <Calls key={id} user={id} />;
  if (page === "webhooks") return <Webhooks />;
  if (page === "endpoints") return id ? <EndpointPage key={id} id={id} /> : <Endpoints />;
  if (page === "access") return <Access />;
  if (page === "broadcast") return <Broadcast />;
  if (page === "system") return <System />;
  return <Overview />;
}

/** What cannot be shown is said, and the rest of the dashboard stays. */
function Guarded({ children }: { children: ComponentChildren }) {
  const [error] = useErrorBoundary();
  if (error === undefined) return <>{children}</>;
  return (
    <Page title="This page cannot be shown">
      <Failure text={reason(error)} />
    </Page>
  );
}

interface Open {
  feed: Feed;
  /** What was refused though somebody is signed in. */
  refused: string;
  leave: () => void;
}

function Dashboard({ feed, refused, leave }: Open) {
  const place = usePlace();
  const { parts } = place;
  const main = useRef<HTMLElement>(null);
  const [said, setSaid] = useState<{ text: string; bad: boolean }>();
  useEffect(() => {
    feed.start();
    return () => feed.stop();
  }, [feed]);
  useEffect(() => {
    if (refused) setSaid({ text: refused, bad: true });
  }, [refused]);
  useEffect(() => {
    if (!said) return;
    const timer = setTimeout(() => setSaid(undefined), SAID);
    return () => clearTimeout(timer);
  }, [said]);
  const first = useRef(true);
  useEffect(() => {
    if (!first.current) {
      main.current?.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    first.current = false;
  }, [parts[0], parts[1]]);
  const current = parts[0] === "users" ? "calls" : parts[0];
  const list = useRef<HTMLUListElement>(null);
  useEffect(() => {
    const link = list.current?.querySelector("[aria-current]");
    link?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [current]);
  const context = { feed, say: (text: string, bad = false) => setSaid({ text, bad }) };
  return (
    <Context.Provider value={context}>
      <button type="button" class="skip button" onClick={() => main.current?.focus()}>
        Skip to the content
      </button>
      <div class="frame">
        <nav aria-label="Pages">
          <div class="rail">
            <a class="brand" href="#/">
              <img
                src={new URL("../shared/icon.svg", import.meta.url).href}
                alt=""
                width="24"
                height="24"
              />
              SyncBridge
            </a>
            <ul ref={list}>
              {PAGES.map(([name, title]) => (
                <li key={name}>
                  <a href={`#/${name}`} aria-current={current === name ? "page" : undefined}>
                    {title}
                  </a>
                </li>
              ))}
            </ul>
            <div class="who">
              <span>
                {feed.me.user_id} <span class="muted">({feed.me.role})</span>
              </span>
              <button type="button" class="button" onClick={leave}>
                Sign out
              </button>
            </div>
          </div>
        </nav>
        <main ref={main} id="content" tabIndex={-1}>
          <Guarded key={parts.join("/")}>
            <Shown place={place} />
          </Guarded>
        </main>
      </div>
      <div role="status" class={`said ${said ? "shown" : ""} ${said?.bad ? "bad" : ""}`}>
        {said?.text}
      </div>
    </Context.Provider>
  );
}

interface SigningIn {
  text: string;
  enter: (token: string) => Promise<void>;
  /** What has failed, once more; undefined: it was refused. */
  again: (() => Promise<void>) | undefined;
}

function SignIn({ text, enter, again }: SigningIn) {
  const [token, setToken] = useState("");
  const [busy, setBusy] = useState(false);
  const go = async (attempt: Promise<void>) => {
    setBusy(true);
    await attempt;
    setBusy(false);
  };
  return (
    <main class="sign-in card">
      <h1>SyncBridge dashboard</h1>
      <p>
        Open the link that <code>make run</code> has printed, or have another one printed on the
        server: <code>syncbridge admin-link</code>. A link works once, for ten minutes.
      </p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void go(enter(token));
        }}
      >
        <label>
          Or paste a token of role admin or viewer
          <input
            type="password"
            autocomplete="off"
            spellcheck={false}
            required
            value={token}
            onInput={({ currentTarget }) => setToken(currentTarget.value)}
          />
        </label>
        <Failure text={text} />
        <div class="row">
          <button type="submit" class="button primary" disabled={busy}>
            Sign in
          </button>
          {again && (
            <button type="button" class="button" disabled={busy} onClick={() => void go(again())}>
              Try again
            </button>
          )}
        </div>
      </form>
    </main>
  );
}

function App() {
  const [feed, setFeed] = useState<Feed>();
  const [text, setText] = useState("");
  const [busy, setBusy] = useState(true);
  const [again, setAgain] = useState<() => Promise<void>>();
  /** `code`: of a link; it is kept until the server has said that it is good, or not. */
  const enter = async (code = "") => {
    let left = code;
    try {
      setText("");
      if (left) await signInByCode(left);
      left = "";
      setFeed(new Feed(await whoAmI()));
      setAgain(undefined);
    } catch (error) {
      const refused = error instanceof ApiError && [401, 403].includes(error.status);
      if (refused && !left) signOut();
      setAgain(refused ? undefined : () => () => enter(left));
      setText(reason(error));
    }
    setBusy(false);
  };
  /** A link that is opened where the dashboard is open already changes nothing but the address. */
  const enterByLink = () => {
    const code = codeInAddress();
    if (!code) return false;
    setBusy(true);
    void enter(code);
    return true;
  };
  useEffect(() => {
    onEnd((why) => {
      setFeed(undefined);
      setText(why);
    });
    if (enterByLink()) return;
    if (restore()) void enter();
    else setBusy(false);
  }, []);
  useEffect(() => {
    addEventListener("hashchange", enterByLink);
    return () => removeEventListener("hashchange", enterByLink);
  }, []);
  if (feed) {
    const leave = () => {
      signOut();
      setText("");
      setFeed(undefined);
    };
    return <Dashboard key={feed.me.user_id} feed={feed} refused={text} leave={leave} />;
  }
  if (busy) return <p class="empty">Signing in…</p>;
  const paste = (token: string) => {
    signInByToken(token);
    return enter();
  };
  return <SignIn text={text} enter={paste} again={again} />;
}

const page = document.getElementById("page")!;
page.replaceChildren();
render(<App />, page);
