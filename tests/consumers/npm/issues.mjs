// Reads {name: event} as JSON, writes {name: [path of each field that SesSchema refuses]}.

import { readFileSync } from "node:fs";
import { SesSchema } from "@aws-lambda-powertools/parser/schemas";

const refused = (event) => (SesSchema.safeParse(event).error?.issues ?? []).map((issue) => issue.path.join("."));
const events = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(Object.fromEntries(Object.entries(events).map(([name, event]) => [name, refused(event)]))));
