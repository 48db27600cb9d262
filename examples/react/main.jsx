// A mixer that all devices of a user see: each device moves it, and its list shows who is there.
//
// `/login` is yours: it answers the address of SyncBridge and an access token of the user.
import { storedDeviceId } from "@syncbridge/client";
import { offline } from "@syncbridge/client/offline";
import {
  SyncBridgeProvider,
  usePresence,
  useSession,
  useStatus,
  useValue,
} from "@syncbridge/client/react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

const login = async () => (await fetch("/login")).json();

function Volume() {
  const session = useSession();
  const volume = useValue("volume") ?? 50;
  const change = (event) => session?.set("volume", event.target.valueAsNumber);
  return <input id="slider" type="range" value={volume} onChange={change} />;
}

function Here() {
  const online = usePresence().filter((device) => device.status === "online");
  return <p id="here">{online.length} here, this one is {useStatus()}</p>;
}

const { url, user } = await login();
const options = {
  url,
  token: async () => (await login()).token,
  deviceId: storedDeviceId(),
  store: offline({ user }),
};
createRoot(document.getElementById("root")).render(
  <StrictMode>
    <SyncBridgeProvider options={options}>
      <Volume />
      <Here />
    </SyncBridgeProvider>
  </StrictMode>,
);
