// JSON that keeps numbers as they were written: identifiers may have more digits than a JavaScript number.

const asWritten = (_, value, context) =>
  typeof value === "number" && String(value) !== context.source ? JSON.rawJSON(context.source) : value;

/** Older browsers round large numbers. */
export const parse = (text) => JSON.parse(text, JSON.rawJSON && asWritten);

export const print = (value) => JSON.stringify(value, null, 2);
