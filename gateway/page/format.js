// In what form the answer is asked for: as text, as JSON, or as JSON that follows a schema.

export const isJson = (choice) => (choice?.response_format?.type ?? "text") !== "text";

/** What every provider takes as a schema's name. */
const nameOf = ({ title }) => (typeof title === "string" && title.replace(/[^\w-]+/g, "_").slice(0, 64)) || "answer";

export class FormatChoice {
  constructor(options) {
    this.options = options;
    this.chosenNow = options.querySelector("summary span"); // to be seen when all else is folded
    this.select = options.querySelector("select");
    this.field = options.querySelector(".schema");
    this.schema = options.querySelector("textarea");
    this.problem = options.querySelector("[role=alert]");
    this.select.addEventListener("change", () => this.chosen());
    this.schema.addEventListener("input", () => this.complain(""));
    this.chosen(); // browsers keep a choice over a reload
  }

  chosen() {
    const { value, selectedOptions } = this.select;
    this.field.hidden = value !== "json_schema";
    this.chosenNow.textContent = value === "text" ? "" : ` · ${selectedOptions[0].textContent}`;
    this.complain("");
  }

  /** What it adds to a request; null where the schema is of no use, and the user is led to it. */
  get() {
    const type = this.select.value;
    if (type === "text") return {};
    if (type === "json_object") return { response_format: { type } };
    const schema = this.readSchema();
    return schema && { response_format: { type, json_schema: { name: nameOf(schema), schema } } };
  }

  /** Makes room for the answer. */
  fold() {
    this.options.open = false;
  }

  readSchema() {
    let problem = "The schema has to be a JSON object.";
    try {
      const schema = JSON.parse(this.schema.value);
      if (typeof schema === "object" && schema && !Array.isArray(schema)) return schema;
    } catch (error) {
      problem = `The schema is not JSON: ${error.message}`;
    }
    this.options.open = true;
    this.complain(problem);
    this.schema.focus();
    return null;
  }

  complain(problem) {
    this.problem.textContent = problem;
    this.schema.setAttribute("aria-invalid", String(problem !== ""));
  }
}
