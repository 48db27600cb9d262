/** The dashboard of an installation. */
import { render } from "preact";
import "../shared/theme.css";

render(<h1>SyncBridge</h1>, document.getElementById("page")!);
