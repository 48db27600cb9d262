// Scripted runs in a real Chromium: whatever breaks, nothing is lost and nothing is doubled.
import { chromiumBrowser } from "../support/chromium";
import { scriptedRuns } from "../support/runs";

scriptedRuns({
  name: "Chromium",
  launch: chromiumBrowser,
  freezes: true,
});
