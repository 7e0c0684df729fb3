// Runs before OHIF's bundle: what its page did in inline scripts, and what lets it live without eval.
window.PUBLIC_URL = "/viewer/";
window.browserImportFunction = function (name) { return import(name); };

// The language of the page, unless the address names one. OHIF's i18n asks the cookie before the storage.
if (!new URLSearchParams(location.search).has("lng")) {
  const language = document.documentElement.lang;
  document.cookie = "i18next=" + language + "; path=/viewer; SameSite=Strict";
  try { localStorage.setItem("i18nextLng", language); } catch (refused) { /* storage is off in this window */ }
}

// The bundle's n-dimensional array library writes its classes as text and evaluates them, which our
// Content-Security-Policy forbids. Packaging makes it ask here instead. OHIF itself uses two-dimensional
// views for segmentations: get, set, shape, data. Anything more fails by name rather than silently.
class ArrayView {
  constructor(data, shape, stride, offset) {
    this.data = data;
    this.shape = Array.from(shape);
    this.stride = Array.from(stride);
    this.offset = offset | 0;
  }
  get dimension() { return this.shape.length; }
  get size() { return this.shape.reduce((product, n) => product * n, 1); }
  index(...at) { return at.reduce((sum, i, axis) => sum + this.stride[axis] * i, this.offset); }
  get(...at) { return this.data[this.index(...at)]; }
  set(...atAndValue) { return (this.data[this.index(...atAndValue.slice(0, -1))] = atAndValue[atAndValue.length - 1]); }
}
class ArrayView2D extends ArrayView {
  index(i, j) { return this.offset + this.stride[0] * i + this.stride[1] * j; }
  get(i, j) { return this.data[this.offset + this.stride[0] * i + this.stride[1] * j]; }
  set(i, j, value) { return (this.data[this.offset + this.stride[0] * i + this.stride[1] * j] = value); }
}
window.negatoscopeArrayView = function (kind, dimension) {
  const View = dimension === 2 ? ArrayView2D : ArrayView;
  return (data, shape, stride, offset) => {
    if (kind === "generic" || !shape) throw new Error("ndarray: only typed arrays with a shape are supported here");
    return new View(data, shape, stride, offset);
  };
};
