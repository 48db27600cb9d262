/** The demo: two devices side by side, and what travels between them. */
import { render } from "preact";
import "../shared/theme.css";

render(<h1>SyncBridge</h1>, document.getElementById("page")!);
