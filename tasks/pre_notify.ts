import { tellPeople } from "../server/worker/mails.ts";
import { task } from "../server/worker/task.ts";

/** One "your files are being restored" mail per person, about all that S3 has accepted and they have not been told. */
export default task({ runs: 1 }, (context, signal) => tellPeople(context, "pre", signal));
