// Pictures that the user searches by. They stay in this tab; the address holds only their keys.

const MAX_BYTES = 20_000_000;
const kept = new Map();

/** Store a picture in this tab and return its key. Throws an Error if it cannot be used. */
export async function keep(file) {
  // Browsers know no type for some pictures, such as HEIC, so the server decides about these.
  if (file.type && !file.type.startsWith("image/")) throw new Error(`${file.name} is not a picture.`);
  if (file.size > MAX_BYTES) throw new Error(`${file.name} has more than 20 MB.`);
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(new Error(`${file.name} cannot be read.`)));
    reader.readAsDataURL(file);
  });
  const key = crypto.getRandomValues(new Uint32Array(2)).join("-");
  kept.set(key, {
    name: file.name,
    base64: url.slice(url.indexOf(",") + 1),
    preview: URL.createObjectURL(file),
  });
  return key;
}

export const find = (key) => kept.get(key);
