// What was built can be loaded by both kinds of modules, and has what it should.
import { createRequire } from "node:module";
import { connect, RawNumber } from "@syncbridge/client";
import { offline } from "@syncbridge/client/offline";

const require = createRequire(import.meta.url);
const common = { ...require("@syncbridge/client"), ...require("@syncbridge/client/offline") };
const values = [connect, offline, common.connect, common.offline, common.createSession];
if (!values.every((value) => typeof value === "function")) throw new Error("an export is missing");
if (!(new RawNumber("1") instanceof common.RawNumber)) throw new Error("two kinds of RawNumber");
