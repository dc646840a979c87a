// Model selection. "provider/*" is a provider that accepts any model name, which a text field then takes; for a key
// that is limited to some models, it may be a pattern such as "provider/gpt-*".

import { listModels } from "./api.js";
import { element } from "./dom.js";
import { keep } from "./key.js";

const KEY = "headrace.model";
const ANY_MODEL = "/*";
const isPattern = (id) => /[*?]/.test(id);

export class ModelChoice {
  constructor(select, nameField, note) {
    this.select = select;
    this.nameField = nameField;
    this.name = nameField.querySelector("input");
    this.note = note;
    select.addEventListener("change", () => this.chosen());
    this.name.addEventListener("change", () => this.chosen());
  }

  async load() {
    try {
      this.fill(await listModels((message) => (this.note.textContent = message)));
    } catch (error) {
      this.note.textContent = `No models: ${error.message}.`;
    }
  }

  fill(ids) {
    this.note.textContent = ids.length ? "" : "No worker offers a model yet.";
    const providers = Map.groupBy?.(ids, providerOf) ?? new Map([["models", ids]]);
    this.select.replaceChildren(
      ...Array.from(providers, ([provider, models]) => {
        const group = element("optgroup");
        group.label = provider;
        group.append(...models.map((id) => new Option(id.endsWith(ANY_MODEL) ? `${provider}: any model…` : id, id)));
        return group;
      }),
    );
    const [last, name] = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    if (ids.includes(last)) this.select.value = last;
    this.name.value = name ?? "";
    this.select.disabled = ids.length === 0;
    this.chosen();
  }

  chosen() {
    const takesName = isPattern(this.select.value);
    this.nameField.hidden = !takesName;
    keep(localStorage, KEY, JSON.stringify([this.select.value, this.name.value]));
    this.select.dispatchEvent(new CustomEvent("chosen"));
  }

  /** {provider, model}, or null if the choice is incomplete; then the missing field gets the focus. */
  get() {
    const choice = this.peek();
    if (this.select.disabled) return null;
    if (!choice.model) this.name.focus();
    return choice.model ? choice : null;
  }

  /** The current choice for an example; `demo/demo` if there is none. */
  peek() {
    const id = this.select.disabled ? "demo/demo" : this.select.value;
    const model = isPattern(id) ? this.name.value.trim() : id.slice(id.indexOf("/") + 1);
    return { provider: providerOf(id), model };
  }
}

const providerOf = (id) => id.split("/", 1)[0];
