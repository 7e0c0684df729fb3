// Entries of a ZIP archive (APPNOTE 6.3), read from a Blob without loading it: the central directory first,
// then each entry alone. Bounded: entries, inflate ratio, no archive within an archive.

const MOST_ENTRIES = 20000;
const MOST_RATIO = 100;
const END = 0x06054b50;
const END_64 = 0x06064b50;
const LOCATOR_64 = 0x07064b50;
const CENTRAL = 0x02014b50;
const LOCAL = 0x04034b50;

async function view(blob, start, end) {
  return new DataView(await blob.slice(start, end).arrayBuffer());
}

async function directory(blob) {
  const from = Math.max(0, blob.size - 65557); // the end record and the longest comment
  const tail = await view(blob, from, blob.size);
  let at = tail.byteLength - 22;
  while (at >= 0 && tail.getUint32(at, true) !== END) at -= 1;
  if (at < 0) throw new Error("zip");
  let count = tail.getUint16(at + 10, true);
  let size = tail.getUint32(at + 12, true);
  let offset = tail.getUint32(at + 16, true);
  if (at >= 20 && tail.getUint32(at - 20, true) === LOCATOR_64) {
    const where = Number(tail.getBigUint64(at - 12, true));
    const end = await view(blob, where, where + 56);
    if (end.getUint32(0, true) !== END_64) throw new Error("zip");
    count = Number(end.getBigUint64(32, true));
    size = Number(end.getBigUint64(40, true));
    offset = Number(end.getBigUint64(48, true));
  }
  if (count > MOST_ENTRIES || size > 64 << 20) throw new Error("zip-long");
  return { count, data: await view(blob, offset, offset + size) };
}

function wide(data, start, end, sizes) {
  // ZIP64 extra field: in this order, only those that did not fit
  for (let at = start; at + 4 <= end; ) {
    const kind = data.getUint16(at, true);
    const length = data.getUint16(at + 2, true);
    if (kind === 1) {
      let next = at + 4;
      for (const name of ["full", "packed", "local"]) {
        if (sizes[name] === 0xffffffff) {
          sizes[name] = Number(data.getBigUint64(next, true));
          next += 8;
        }
      }
    }
    at += 4 + length;
  }
  return sizes;
}

/** Yields {name, size, open()} for each file; open() resolves to a Blob of its content. */
export async function* entries(blob) {
  const { count, data } = await directory(blob);
  let at = 0;
  for (let number = 0; number < count; number += 1) {
    if (data.getUint32(at, true) !== CENTRAL) throw new Error("zip");
    const flags = data.getUint16(at + 8, true);
    const method = data.getUint16(at + 10, true);
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((place) => data.getUint16(at + place, true));
    const nameStart = at + 46;
    const name = new TextDecoder().decode(new Uint8Array(data.buffer, data.byteOffset + nameStart, nameLength));
    const sizes = wide(data, nameStart + nameLength, nameStart + nameLength + extraLength, {
      packed: data.getUint32(at + 20, true),
      full: data.getUint32(at + 24, true),
      local: data.getUint32(at + 42, true),
    });
    at = nameStart + nameLength + extraLength + commentLength;
    if (name.endsWith("/")) continue;
    yield { name, size: sizes.full, open: () => content(blob, sizes, method, flags) };
  }
}

async function content(blob, sizes, method, flags) {
  if (flags & 1) throw new Error("zip-locked");
  if (sizes.full > sizes.packed * MOST_RATIO + 4096) throw new Error("zip-bomb");
  const head = await view(blob, sizes.local, sizes.local + 30);
  if (head.getUint32(0, true) !== LOCAL) throw new Error("zip");
  const start = sizes.local + 30 + head.getUint16(26, true) + head.getUint16(28, true);
  const packed = blob.slice(start, start + sizes.packed);
  if (method === 0) return packed;
  if (method !== 8) throw new Error("zip-method");
  let left = sizes.full; // the declared size is a promise that is checked as the bytes come
  const counted = new TransformStream({
    transform(chunk, controller) {
      left -= chunk.byteLength;
      if (left < 0) throw new Error("zip-bomb");
      controller.enqueue(chunk);
    },
  });
  return new Response(packed.stream().pipeThrough(new DecompressionStream("deflate-raw")).pipeThrough(counted)).blob();
}
