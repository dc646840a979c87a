// Prepares an image for a question: checks its type, and makes large ones smaller. What is drawn anew also loses the
// place and the camera that a photo names.

const LONGEST_SIDE = 2048; // pixels
const MOST_FILE_BYTES = 30_000_000;
const MOST_BYTES = 1_500_000; // of what is sent
const QUALITIES = [0.85, 0.7, 0.5];
const SIGNATURES = { "image/png": "\x89PNG", "image/gif": "GIF8", "image/webp": "RIFF" }; // sent as they are, if small

/** Returns the data: URL of an image. Throws an Error with a sentence for the user. */
export async function prepare(file) {
  const name = file.name || "The image";
  if (!file.type.startsWith("image/")) {
    throw new Error(`${name} is not an image. Attach a PNG, JPEG, WebP or GIF file.`);
  }
  if (file.size > MOST_FILE_BYTES) {
    const most = MOST_FILE_BYTES / 1e6;
    throw new Error(`${name} has ${Math.ceil(file.size / 1e6)} MB. The limit is ${most} MB: attach a smaller copy.`);
  }
  const image = await createImageBitmap(file).catch(() => null);
  if (!image) throw new Error(`${name} cannot be read here. Attach a PNG, JPEG, WebP or GIF file.`);
  const isSmall = Math.max(image.width, image.height) <= LONGEST_SIDE && file.size <= MOST_BYTES;
  const blob = isSmall && (await hasSignature(file)) ? file : await drawn(image);
  image.close();
  if (!blob) throw new Error(`${name} is too large for this browser. Attach a smaller copy.`);
  return toDataUrl(blob);
}

async function hasSignature(file) {
  const start = String.fromCharCode(...new Uint8Array(await file.slice(0, 4).arrayBuffer()));
  return SIGNATURES[file.type] === start;
}

/** A JPEG of at most so many pixels and bytes; null if the browser cannot make one. */
async function drawn(image) {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(image.width, image.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // a JPEG has no transparency
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  let blob = null;
  for (const quality of QUALITIES) {
    blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", quality));
    if (!blob || blob.size <= MOST_BYTES) break;
  }
  return blob;
}

function toDataUrl(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => done(reader.result));
    reader.addEventListener("error", () => failed(reader.error));
    reader.readAsDataURL(blob);
  });
}
