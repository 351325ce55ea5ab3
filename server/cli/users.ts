/** `npm run users -- import FILE | list | ...`: the users commands under the name they had first, with 1 for each failure. */
import { EXIT } from "./command.ts";
import { enter } from "./enter.ts";

const DOOR = { typed: "npm run users --", prefix: "users" };

await enter(process.argv.slice(2), process.env, DOOR, (exit) => (exit === EXIT.done ? 0 : 1));
