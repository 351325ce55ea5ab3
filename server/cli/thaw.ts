/** `npm run thaw -- <command>`: the door of operators (`npm run thaw -- -h` lists the commands). */
import { enter } from "./enter.ts";

await enter(process.argv.slice(2), process.env);
