// Reads the two generated descriptions with the parsers their own projects publish. Any finding fails.
//   node check.mjs FOLDER
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Parser } from "@asyncapi/parser";
import { Validator } from "@seriousme/openapi-schema-validator";

const folder = process.argv[2];
let findings = 0;
const tell = (file, finding) => {
  findings += 1;
  console.error(`${file}: ${finding}`);
};

// Severities: 0 is an error, 1 a warning; hints about style are the author's business.
const { document, diagnostics } = await new Parser().parse(await readFile(join(folder, "asyncapi.json"), "utf8"));
for (const { severity, code, path, message } of diagnostics.filter(({ severity }) => severity <= 1)) {
  tell("asyncapi.json", `${severity === 0 ? "error" : "warning"} ${code} at ${path.join(".")}: ${message}`);
}
if (document && document.channels().all().length === 0) tell("asyncapi.json", "describes no channel");

// Checks against the OpenAPI Initiative's own schemas, and that every reference leads somewhere.
const validator = new Validator();
const { valid, errors } = await validator.validate(join(folder, "openapi.json"));
if (!valid) {
  for (const error of [errors].flat()) tell("openapi.json", typeof error === "string" ? error : JSON.stringify(error));
} else {
  validator.resolveRefs();
}

if (findings) process.exit(1);
console.log(`${folder}: asyncapi.json and openapi.json are as their specifications say`);
