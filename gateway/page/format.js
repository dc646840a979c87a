// Format of the answer: text, JSON, or JSON that follows a schema.

export const isJson = (choice) => (choice?.response_format?.type ?? "text") !== "text";

/** A schema name that every provider accepts. */
const nameOf = ({ title }) => (typeof title === "string" && title.replace(/[^\w-]+/g, "_").slice(0, 64)) || "answer";

export class FormatChoice {
  constructor(options) {
    this.options = options;
    this.currentLabel = options.querySelector("summary span"); // visible when the options are folded
    this.select = options.querySelector("select");
    this.field = options.querySelector(".schema");
    this.schema = options.querySelector("textarea");
    this.problem = options.querySelector("[role=alert]");
    this.select.addEventListener("change", () => this.chosen());
    this.schema.addEventListener("input", () => this.showProblem(""));
    this.chosen(); // browsers keep the selection across a reload
  }

  chosen() {
    const { value, selectedOptions } = this.select;
    this.field.hidden = value !== "json_schema";
    this.currentLabel.textContent = value === "text" ? "" : ` · ${selectedOptions[0].textContent}`;
    this.showProblem("");
  }

  /** The fields it adds to a request; null if the schema is invalid, which then gets the focus. */
  get() {
    const type = this.select.value;
    if (type === "text") return {};
    if (type === "json_object") return { response_format: { type } };
    const schema = this.readSchema();
    return schema && { response_format: { type, json_schema: { name: nameOf(schema), schema } } };
  }

  /** Folds the options to make room for the answer. */
  fold() {
    this.options.open = false;
  }

  readSchema() {
    let problem = "The schema must be a JSON object.";
    try {
      const schema = JSON.parse(this.schema.value);
      if (typeof schema === "object" && schema && !Array.isArray(schema)) return schema;
    } catch (error) {
      problem = `The schema is not JSON: ${error.message}`;
    }
    this.options.open = true;
    this.showProblem(problem);
    this.schema.focus();
    return null;
  }

  showProblem(problem) {
    this.problem.textContent = problem;
    this.schema.setAttribute("aria-invalid", String(problem !== ""));
  }
}
