/** The demo: two devices of one user side by side, and what travels between them and the server. */
import { render } from "preact";
import { newUuid } from "../shared/ids";
import { keptOverReload } from "../shared/kept";
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
  const made = newUuid();
  history.replaceState(null, "", `#${made}`);
  return made;
}

const traffic = new Traffic();
const media = document.querySelector<HTMLMetaElement>('meta[name="media"]')?.content ?? "";
const place = { sessionId: sessionOf(location), media, traffic };
/** A tab keeps its devices when it is loaded again; a copy of it has others. */
const id: string = keptOverReload("tab", () => id) ?? newUuid().slice(0, 8);
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
