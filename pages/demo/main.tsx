/** The demo: two devices of one user side by side, and what travels between them and the server. */
import { render } from "preact";
import "../shared/theme.css";
import "./demo.css";
import { Device } from "./device";
import { Guest } from "./guest";
import { Page } from "./page";
import { Traffic } from "./traffic";

/** The address names the session: who opens it elsewhere has a third and a fourth device of it. */
function sessionOf(page: Location): string {
  const named = page.hash.slice(1);
  if (/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(named)) return named;
  const made = crypto.randomUUID();
  history.replaceState(null, "", `#${made}`);
  return made;
}

/** A tab keeps its devices when it is loaded again. */
function tab(): string {
  const kept = sessionStorage.getItem("tab") ?? crypto.randomUUID().slice(0, 8);
  sessionStorage.setItem("tab", kept);
  return kept;
}

const traffic = new Traffic();
const media = document.querySelector<HTMLMetaElement>('meta[name="media"]')?.content ?? "";
const place = { sessionId: sessionOf(location), media, traffic };
const id = tab();
const devices = [
  new Device("Phone", `phone-${id}`, "mobile", place),
  new Device("Laptop", `laptop-${id}`, "desktop", place),
];
const guest = new Guest(place.sessionId, media);
window.addEventListener("hashchange", () => location.reload());
render(
  <Page devices={devices} guest={guest} traffic={traffic} />,
  document.getElementById("page")!,
);
