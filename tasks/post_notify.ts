import { tellPeople } from "../server/worker/mails.ts";
import { task } from "../server/worker/task.ts";

/** One mail per person with the outcome: what is ready and until when, what failed and why. */
export default task({ runs: 1 }, (context, signal) => tellPeople(context, "post", signal));
