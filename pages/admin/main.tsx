/** The dashboard of an installation: sign-in, and the pages behind it. */
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import {
  codeInAddress,
  onEnd,
  restore,
  signInByCode,
  signInByToken,
  signOut,
  whoAmI,
} from "./access";
import { Feed } from "./live";
import { Context, Failure, reason } from "./ui/parts";
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

function useHash(): string[] {
  const read = () => location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const [parts, setParts] = useState(read);
  useEffect(() => {
    const changed = () => setParts(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return parts;
}

function Shown({ parts: [page = "", id = "", within = ""] }: { parts: string[] }) {
  if (page === "sessions") return id ? <Session key={id} id={id} /> : <Sessions />;
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

function Dashboard({ feed, leave }: { feed: Feed; leave: () => void }) {
  const parts = useHash();
  const main = useRef<HTMLElement>(null);
  const [said, setSaid] = useState<{ text: string; bad: boolean }>();
  useEffect(() => {
    feed.start();
    return () => feed.stop();
  }, [feed]);
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
            <ul>
              {PAGES.map(([name, title]) => (
                <li key={name}>
                  <a href={`#/${name}`} aria-current={parts[0] === name ? "page" : undefined}>
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
          <Shown parts={parts} />
        </main>
      </div>
      <div role="status" class={`said ${said ? "shown" : ""} ${said?.bad ? "bad" : ""}`}>
        {said?.text}
      </div>
    </Context.Provider>
  );
}

function SignIn({ text, enter }: { text: string; enter: (token: string) => Promise<void> }) {
  const [token, setToken] = useState("");
  const [busy, setBusy] = useState(false);
  return (
    <main class="sign-in card">
      <h1>SyncBridge dashboard</h1>
      <p>
        Open the link that <code>make run</code> has printed, or have another one printed on the
        server: <code>syncbridge admin-link</code>. A link works once, for ten minutes.
      </p>
      <form
        onSubmit={async (event) => {
          event.preventDefault();
          setBusy(true);
          await enter(token.trim());
          setBusy(false);
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
        <button type="submit" class="button primary" disabled={busy}>
          Sign in
        </button>
      </form>
    </main>
  );
}

function App() {
  const [feed, setFeed] = useState<Feed>();
  const [text, setText] = useState("");
  const [busy, setBusy] = useState(true);
  const enter = async () => {
    try {
      setFeed(new Feed(await whoAmI()));
      setText("");
    } catch (error) {
      signOut();
      setText(reason(error));
    }
    setBusy(false);
  };
  useEffect(() => {
    onEnd((why) => {
      setFeed(undefined);
      setText(why);
    });
    const code = codeInAddress();
    if (code) {
      signInByCode(code).then(enter, (error) => {
        setText(reason(error));
        setBusy(false);
      });
    } else if (restore()) {
      void enter();
    } else {
      setBusy(false);
    }
  }, []);
  if (feed) {
    const leave = () => {
      signOut();
      setFeed(undefined);
    };
    return <Dashboard key={feed.me.user_id} feed={feed} leave={leave} />;
  }
  if (busy) return <p class="empty">Signing in…</p>;
  const paste = (token: string) => {
    signInByToken(token);
    return enter();
  };
  return <SignIn text={text} enter={paste} />;
}

const page = document.getElementById("page")!;
page.replaceChildren();
render(<App />, page);
