// Validates objects of extensions, a JSON array on standard input, strictly. Prints the problems, and exits with 1 if
// there are any. Runs in the folder where the packages are installed.
import { readFileSync } from "node:fs";

const PACKAGES = {
  "gateway.networking.k8s.io": "@kubernetes-models/gateway-api",
  "keda.sh": "@kubernetes-models/keda",
};

// The schemas allow unknown fields, which a cluster refuses or drops. A field that its schema never reads is unknown.
function watched(value, path, unread) {
  if (typeof value !== "object" || value === null) return value;
  const children = {};
  for (const [name, child] of Object.entries(value)) {
    const place = `${path}.${name}`;
    if (!Array.isArray(value)) unread.add(place);
    children[name] = watched(child, place, unread);
  }
  const target = Array.isArray(value) ? Object.values(children) : children;
  return new Proxy(target, {
    get(of, name) {
      unread.delete(`${path}.${String(name)}`);
      return of[name];
    },
    ownKeys(of) {
      for (const name of Object.keys(of)) unread.delete(`${path}.${name}`); // a map with free keys
      return Reflect.ownKeys(of);
    },
  });
}

async function check(object) {
  const [group] = object.apiVersion.split("/");
  const models = await import(`${PACKAGES[group]}/${object.apiVersion}`);
  const unread = new Set();
  const model = new models[object.kind](object);
  model.spec = watched(object.spec, "spec", unread); // the constructor would copy it
  model.validate();
  if (unread.size) throw new Error(`unknown fields: ${[...unread].join(", ")}`);
}

let failed = false;
for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    await check(object);
  } catch (error) {
    failed = true;
    console.error(`${object.kind} ${object.metadata.name}: ${error.message}`);
  }
}
process.exit(failed ? 1 : 0);
