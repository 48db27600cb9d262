// The same runs in Debian's Firefox, by WebDriver BiDi. It cannot be told to freeze a page.
import { firefoxBrowser } from "../support/firefox";
import { scriptedRuns } from "../support/runs";

scriptedRuns({
  name: "Firefox",
  launch: firefoxBrowser,
  freezes: false,
});
