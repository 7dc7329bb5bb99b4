// Pictures that somebody searches by. They stay in this tab: the address only names them.

const MAX_BYTES = 20_000_000;
const kept = new Map();

/** Keep a picture of the visitor's; its key. Throws an Error that says why it cannot be used. */
export async function keep(file) {
  // A browser knows no type for some files that are pictures, HEIC among them: the server decides.
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
