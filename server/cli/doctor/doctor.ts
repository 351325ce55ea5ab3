/** `npm run doctor [-- bucket | bucket/key ...]`: the doctor of `npm run thaw`, under the name it had first. */
import { enter } from "../enter.ts";

const DOOR = { typed: "npm run doctor --", prefix: "doctor" };

await enter(process.argv.slice(2), process.env, DOOR);
