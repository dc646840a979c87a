// Content of a message: text, and images as parts with a data: URL.

const names = new WeakMap(); // an image's part → the name of its file, which the gateway does not keep

export function imagePart(url, name) {
  const part = { type: "image_url", image_url: { url } };
  names.set(part, name);
  return part;
}

export const nameOf = (part) => names.get(part) ?? "Attached image";

/** The content of a message. `others`: parts that this page does not make, such as files. */
export function contentOf(text, images, others = []) {
  const parts = [...images, ...others];
  if (parts.length === 0) return text;
  return text ? [...parts, { type: "text", text }] : parts;
}

const partsOf = (content) => (Array.isArray(content) ? content : []);
const isText = ({ type }) => type === "text";
const isImage = ({ type, image_url: image }) => type === "image_url" && (image?.url ?? "").startsWith("data:image/");

/** The images that the page can show. It loads nothing from other addresses. */
export const imagesOf = (content) => partsOf(content).filter(isImage);

export const otherPartsOf = (content) => partsOf(content).filter((part) => !isText(part) && !isImage(part));

/** The text that its writer can edit. */
export const textIn = (content) =>
  typeof content === "string"
    ? content
    : partsOf(content)
        .filter(isText)
        .map(({ text }) => text)
        .join("\n");

/** The text of a message. A part that the page cannot show is named. */
export function shownText(content) {
  if (typeof content === "string") return content;
  const shown = partsOf(content).filter((part) => !isImage(part));
  return shown.map(({ type, text }) => text ?? `[${String(type).replaceAll("_", " ")}]`).join("\n");
}
